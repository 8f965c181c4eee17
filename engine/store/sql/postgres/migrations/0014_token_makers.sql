-- Who made an API token: by the name of the audit, by the user on whose rights it stands, by the token that it was made with.
-- All unknown for tokens that were there before.
ALTER TABLE tokens ADD COLUMN made_by text, ADD COLUMN made_with text, ADD COLUMN maker uuid;
COMMENT ON COLUMN tokens.made_with IS 'the prefix of a token';
COMMENT ON COLUMN tokens.maker IS 'a user: the one who made it, or whose token it was made with';
