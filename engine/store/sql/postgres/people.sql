-- People who sign in: users, memberships, identities, invitations, sessions.

-- name: add_user
SELECT id FROM add_user(:id, :email, :name, :password, :created_at) AS r(id)

-- name: person
SELECT * FROM people_of(ARRAY[:id::uuid], NULL)

-- name: person_by_email
SELECT * FROM people_of(users_by_email(:email), NULL)

-- name: person_by_identity
SELECT * FROM people_of(users_by_identity(:issuer, :subject), NULL)

-- name: people
SELECT * FROM people_of(users_of(:tenant, :limit, :after), :tenant)

-- name: set_password
SELECT id FROM set_password(:id, :password, :was) AS r(id)

-- name: disable_user
SELECT id FROM disable_user(:id, :disabled_at) AS r(id)

-- name: remove_user
SELECT id FROM remove_user(:id) AS r(id)

-- name: put_membership
SELECT put_membership(:user_id, :tenant, :roles, :created_at, :disabled_at)

-- name: remove_membership
SELECT id FROM remove_membership(:user_id, :tenant, :now) AS r(id)

-- name: add_identity
SELECT id FROM add_identity(:issuer, :subject, :user_id, :created_at) AS r(id)

-- name: identities
SELECT * FROM identities(:user_id)

-- name: remove_identity
SELECT id FROM remove_identity(:issuer, :subject) AS r(id)

-- name: add_invitation
SELECT add_invitation(:id, :digest, :email, :tenant, :roles, :invited_by, :created_at, :expires_at)

-- name: invitation
SELECT * FROM invitation(:id)

-- name: invitation_by_digest
SELECT * FROM invitation_by_digest(:digest)

-- name: invitations
SELECT * FROM invitations(:tenant, :email)

-- name: revoke_invitation
SELECT id FROM revoke_invitation(:id, :now) AS r(id)

-- name: accept_invitation
SELECT id FROM accept_invitation(:id, :user_id, :email, :name, :password, :now) AS r(id)

-- name: add_session
SELECT add_session(:digest, :user_id, :tenant, :created_at, :expires_at, :address, :agent)

-- name: signed
SELECT * FROM signed(:digest)

-- name: sessions
SELECT * FROM sessions(:user_id)

-- name: touch_session
SELECT id FROM touch_session(:digest, :now, :before) AS r(id)

-- name: move_session
SELECT id FROM move_session(:digest, :tenant) AS r(id)

-- name: end_session
SELECT id FROM end_session(:digest, :now) AS r(id)

-- name: end_sessions
SELECT digest FROM end_sessions(:user_id, :but, :tenant, :now) AS r(digest)

-- name: forget_past_people
SELECT n FROM forget_past_people(:before) AS r(n)

-- name: note_standing
SELECT tenant FROM note_standing(:tenant, :state, :revision) AS r(tenant)

-- name: standing
SELECT state FROM standing(:tenant) AS r(state)
