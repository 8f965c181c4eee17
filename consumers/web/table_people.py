"""Routes of people: sessions and sign-in, invitations, users."""

from __future__ import annotations

from typing import Final

from consumers.web import asked, asked_people, oidc, people, sign_in, told_people
from consumers.web.routes import Route

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="POST", path="/v1/session", handler=sign_in.sign_in, tag="session", permission=None,
        summary="Sign in by e-mail address and password; the session is in the cookie of the answer",
        body=asked_people.SignIn, answer=told_people.SessionTold, status=201, always=True,
    ),
    Route(
        method="GET", path="/v1/session", handler=sign_in.show_session, tag="session", permission=None, session=True,
        summary="Who is signed in, where he may act, and the token that his page sends", answer=told_people.SessionTold,
    ),
    Route(
        method="GET", path="/v1/session/providers", handler=oidc.list_providers, tag="session", permission=None,
        summary="The identity provider that people may sign in by, if there is one", answer=told_people.Providers,
    ),
    Route(
        method="GET", path=oidc.BEGIN, handler=oidc.begin_oidc, tag="session", permission=None,
        summary="Go to the identity provider to sign in there",
        query=asked_people.BeginOidc, answer=told_people.Onward, status=302,
    ),
    Route(
        method="GET", path=oidc.BACK, handler=oidc.finish_oidc, tag="session", permission=None,
        summary="Come back from the identity provider; the session is in the cookie of the answer",
        query=asked_people.FinishOidc, answer=told_people.Onward, status=302,
    ),
    Route(
        method="DELETE", path="/v1/session", handler=sign_in.sign_out, tag="session", permission=None, session=True,
        summary="Sign out", answer=told_people.SignedOut, always=True,
    ),
    Route(
        method="PUT", path="/v1/session/tenant", handler=sign_in.move_session, tag="session", permission=None,
        session=True, summary="Act in another tenant from now on", body=asked_people.MoveSession,
        answer=told_people.SessionTold, always=True,
    ),
    Route(
        method="POST", path="/v1/session/password", handler=sign_in.change_password, tag="session", permission=None,
        session=True, summary="Change one's own password", body=asked_people.ChangePassword,
        answer=told_people.SignedOut,
    ),
    Route(
        method="GET", path="/v1/sessions", handler=sign_in.list_sessions, tag="session", permission=None, session=True,
        summary="One's own sessions", answer=told_people.SessionEntries,
    ),
    Route(
        method="DELETE", path="/v1/sessions", handler=sign_in.end_other_sessions, tag="session", permission=None,
        session=True, summary="Sign out everywhere else", answer=told_people.SignedOut, always=True,
    ),
    Route(
        method="POST", path="/v1/invitations/accept", handler=sign_in.accept_invitation, tag="session", permission=None,
        summary="Accept an invitation; proven by its token, and by the password of a user who is known",
        body=asked_people.AcceptInvitation, answer=told_people.SessionTold, status=201,
    ),
    Route(
        method="GET", path="/v1/invitations", handler=people.list_invitations, tag="users", permission="users.read",
        summary="Invitations; never their tokens", query=asked.Query, answer=told_people.Invitations,
    ),
    Route(
        method="POST", path="/v1/invitations", handler=people.invite_user, tag="users", permission="users.manage",
        summary="Invite somebody; the token is told this once", body=asked_people.Invite, query=asked.Query,
        answer=told_people.InvitationToken, status=201,
    ),
    Route(
        method="DELETE", path="/v1/invitations/{invitation_id}", handler=people.revoke_invitation, tag="users",
        permission="users.manage", summary="Revoke an invitation", query=asked.Query, answer=told_people.Invitation,
    ),
    Route(
        method="GET", path="/v1/users", handler=people.list_users, tag="users", permission="users.read",
        summary="Users: members of the tenant, or everybody", query=asked_people.UsersQuery, answer=told_people.Users,
    ),
    Route(
        method="GET", path="/v1/users/{user_id}", handler=people.get_user, tag="users", permission="users.read",
        summary="One user", query=asked.Query, answer=told_people.User,
    ),
    Route(
        method="PATCH", path="/v1/users/{user_id}", handler=people.change_user, tag="users", permission="users.manage",
        summary="Change a user's roles, or whether he may act; it holds at once", body=asked_people.ChangeUser,
        query=asked.Query, answer=told_people.User, always=True,
    ),
    Route(
        method="DELETE", path="/v1/users/{user_id}/sessions", handler=people.sign_user_out, tag="users",
        permission="users.manage", summary="End a user's sessions", query=asked.Query, answer=told_people.SignedOut,
        always=True,
    ),
    Route(
        method="DELETE", path="/v1/users/{user_id}/identities", handler=oidc.unlink_identities, tag="users",
        permission="users.erase", summary="Forget who a user is to the identity provider; a sign-in may link anew",
        answer=told_people.IdentitiesUnlinked, always=True,
    ),
    Route(
        method="DELETE", path="/v1/users/{user_id}", handler=people.erase_user, tag="users", permission="users.erase",
        summary="Delete all that is kept of a user, for good", answer=told_people.UserErased,
    ),
)  # fmt: skip
