// An OpenID Connect provider with accounts in memory and the library's own pages for signing in. ACCOUNTS are claims by
// login name, REDIRECT_URI is the one place that its one client may be sent back to. Prints its issuer once it listens.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const accounts = JSON.parse(process.env.ACCOUNTS);
const key = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" });

const configuration = {
  clients: [
    {
      client_id: process.env.CLIENT_ID,
      client_secret: process.env.CLIENT_SECRET,
      redirect_uris: [process.env.REDIRECT_URI],
    },
  ],
  jwks: { keys: [{ ...key, kid: "rsa", use: "sig" }] },
  cookies: { keys: ["of these stories alone"] },
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
  findAccount: (_, login) =>
    accounts[login] && { accountId: login, claims: () => ({ sub: login, ...accounts[login] }) },
};

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  server.on("request", new Provider(issuer, configuration).callback());
  console.log(issuer);
});
process.on("SIGTERM", () => process.exit(0));
