-- Who made an API token: by the name of the audit, by the token (its prefix) that it was made with, by the user on whose rights it stands.
-- All unknown for tokens that were there before.
ALTER TABLE tokens ADD COLUMN made_by TEXT;
ALTER TABLE tokens ADD COLUMN made_with TEXT;
-- Who made it, or whose token it was made with.
ALTER TABLE tokens ADD COLUMN maker TEXT;
