"""Sagas generated from blueprints: what the template makes is what ships, a product adds steps and sagas of its own and
nothing else, and what does not describe a workflow is refused by its place with a remedy."""

from __future__ import annotations

import ast
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from contracts.blueprint import BlueprintInvalid, StepOperation, Workflow, read_blueprint
from contracts.calls import ActionCall
from contracts.manifest import Module
from contracts.modules import SHIPPED
from contracts.notices import UNWIND
from contracts.registry import Registry
from docs.examples.products import clinic, shop
from engine.blueprints import Generated, generate, installed, load, templates, with_blueprints
from engine.plan.blueprint import Installed, check, saga_from, walk
from engine.plan.code import Run, Saga, saga
from engine.rehearsal import rehearse_workflow
from engine.sagas import SHIPPED as SAGAS
from engine.simulate import Simulation, fails

ROOT = Path(__file__).resolve().parents[3]
PRODUCTS = ROOT / "docs" / "examples" / "products"
MODULES: dict[str, Module] = {"clinic": clinic.MODULE, "shop": shop.MODULE}
ADDED = {"clinic": ("patient_register", "entitlements"), "shop": ("storefront", "activation_mail")}
OWN = {"clinic": "patient-intake", "shop": "order-fulfilment"}


def what(*modules: Module) -> Installed:
    registry = Registry((*SHIPPED, UNWIND, *modules))
    return installed(registry, registry.action_specs())


def product(name: str) -> dict[str, Generated]:
    return {one.workflow.name: one for one in load(PRODUCTS / f"{name}.json", what(MODULES[name]))}


def played(workflow: Workflow, *modules: Module, made: Saga | None = None, **scripts: Any) -> Simulation:
    """A run of the workflow's example; `scripts` are by step. `made` is another saga than the generated one."""
    outputs = workflow.example.outputs

    def answer(call: ActionCall) -> Any:
        return outputs.get(call.key.rsplit("/", 2)[1], {})

    actions = {one.action: answer for one in walk(workflow.operations) if isinstance(one, StepOperation)}
    sim = Simulation(
        made or saga_from(workflow),
        workflow.example.input,
        actions=actions,
        steps=scripts,
        registry=Registry((*SHIPPED, UNWIND, *modules)),
    )
    sim.run_until_idle()
    return sim


def done(sim: Simulation) -> list[str]:
    return [call.key.rsplit("/", 2)[1] for call in sim.calls if not call.undo]


@pytest.mark.parametrize("name", MODULES)
def test_a_product_has_the_templates_saga_with_one_step_more_and_a_saga_of_its_own(name: str) -> None:
    generated = product(name)
    assert set(generated) == {"tenant-onboarding", OWN[name]}
    derived, template = generated["tenant-onboarding"].workflow, templates()["tenant-onboarding"]
    assert derived.version > template.version
    step, behind = ADDED[name]
    plain, extended = done(played(template)), done(played(derived, MODULES[name]))
    assert [one for one in extended if one != step] == plain
    assert extended.index(step) == extended.index(behind) + 1 or step in extended[extended.index(behind) :]
    changed = set(Workflow.model_fields) - {"version", "operations", "example"}
    assert {field: getattr(derived, field) for field in changed} == {
        field: getattr(template, field) for field in changed
    }


@pytest.mark.parametrize("name", MODULES)
def test_the_step_of_the_product_is_undone_in_its_place(name: str) -> None:
    derived = product(name)["tenant-onboarding"].workflow
    sim = played(derived, MODULES[name], activate=fails("steps_missing", irrecoverable=True))
    assert (sim.status, sim.business_state, sim.ledger_neutral) == ("compensated", "ProvisioningFailed", True)
    undone = [call.key.split("/")[1] for call in sim.calls if call.undo]
    has_undo = [one for one in done(sim) if one not in ("register", "activation_mail", "activate")]
    assert undone == has_undo[::-1]
    assert ADDED[name][0] in undone


@pytest.mark.parametrize("name", MODULES)
def test_every_generated_saga_is_neutral_whichever_step_fails(name: str) -> None:
    actions = Registry((*SHIPPED, MODULES[name])).action_specs()
    for one in product(name).values():
        rehearsal = rehearse_workflow(one.workflow, actions)
        assert rehearsal.neutral, str(rehearsal)
        assert rehearsal.uncovered == ()
        steps = {step.step for step in walk(one.workflow.operations) if isinstance(step, StepOperation)}
        assert {case.step for case in rehearsal.cases} == steps


def test_an_unpaid_order_is_for_sale_again() -> None:
    workflow = product("shop")["order-fulfilment"].workflow
    sim = played(workflow, shop.MODULE)
    assert (sim.status, sim.ledger_neutral) == ("compensated", True)
    assert done(sim) == ["reserve"]


def test_a_product_imports_contracts_alone() -> None:
    for path in PRODUCTS.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert {name.split(".")[0] for name in named} <= {"__future__", "contracts"}, path.name


@saga(
    "tenant-onboarding",
    version=1,
    on_failure="park",
    parked_state="ProvisioningFailed",
    unwound_states={
        "failed": "ProvisioningFailed",
        "timed_out": "ProvisioningFailed",
        "cancelled": "ProvisioningFailed",
        "abandoned": "Decommissioned",
    },
    timeout_seconds=15 * 60,
    attributes={"tenant_name": "/name", "edition": "/edition"},
    subject="/owner_email",
    personal=("/owner_email", "/owner_name"),
)
async def by_hand(run: Run, signup: dict[str, Any]) -> dict[str, Any]:
    tenant = await run.step(
        "register",
        "tenancy.register_tenant",
        name=signup["name"],
        edition=signup.get("edition", "standard"),
        trial=signup.get("trial", True),
        owner_email=signup["owner_email"],
        owner_name=signup["owner_name"],
    )
    await run.state("Registered")
    await run.step("begin", "tenancy.begin_provisioning")
    await run.state("Provisioning")
    subscription, owner = await run.gather(_subscribe(run, tenant), _invite(run, tenant))
    await run.step(
        "activate", "tenancy.activate_tenant", steps=["subscription", "entitlements", "owner", "activation_mail"]
    )
    await run.state("Active")
    return {"tenant": tenant["tenant"], "subscription_id": subscription, "owner_id": owner}


async def _subscribe(run: Run, tenant: dict[str, Any]) -> str:
    subscription = await run.step(
        "subscription", "billing.create_subscription", edition=tenant["edition"], trial=tenant["trial"]
    )
    await run.step(
        "entitlements",
        "configuration.apply_entitlements",
        edition=tenant["edition"],
        subscription_id=subscription["subscription_id"],
    )
    return str(subscription["subscription_id"])


async def _invite(run: Run, tenant: dict[str, Any]) -> str:
    owner = await run.step(
        "owner",
        "identity.invite_user",
        email=tenant["owner_email"],
        name=tenant["owner_name"],
        role="owner",
        user_id=tenant["owner_id"],
    )
    await run.step(
        "activation_mail",
        "notifications.send_notification",
        template="activation",
        to=owner["email"],
        recipient_id=owner["user_id"],
        data={
            "name": owner["name"],
            "tenant_name": tenant["name"],
            "link": f"/activate?user={owner['user_id']}",
        },
    )
    return str(owner["user_id"])


ONBOARDING_STEPS = ("register", "begin", "subscription", "entitlements", "owner", "activation_mail", "activate")


@pytest.mark.parametrize("failing", [None, *ONBOARDING_STEPS])
@pytest.mark.parametrize("irrecoverable", [True, False])
def test_what_the_template_generates_is_event_by_event_what_one_writes_by_hand(
    failing: str | None, irrecoverable: bool
) -> None:
    template = templates()["tenant-onboarding"]
    scripts = {} if failing is None else {failing: fails("broken", irrecoverable=irrecoverable)}
    histories = []
    for made in (saga_from(template), by_hand):
        sim = played(template, made=made, **scripts)
        if sim.status == "parked":
            sim.abandon(reason="given up")
            sim.run_until_idle()
        histories.append(sim.events)
    assert histories[0] == histories[1]
    generated, written = saga_from(template), by_hand
    assert {field.name: getattr(generated, field.name) for field in fields(Saga) if field.name != "function"} == {
        field.name: getattr(written, field.name) for field in fields(Saga) if field.name != "function"
    }


EVERYTHING: dict[str, Any] = {
    "blueprint": 1,
    "product": "trial",
    "workflows": [
        {
            "name": "everything",
            "version": 1,
            "on": ["crm.SignupRequestedV1"],
            "operations": [
                {
                    "step": "user",
                    "action": "identity.create_user",
                    "input": {"email": {"$": "/data/email"}, "name": "A"},
                },
                {"sleep": "pause", "seconds": 60},
                {
                    "together": [
                        [{"approve": "review", "title": "Look", "timeout_seconds": 60, "context": {"$": "/data"}}],
                        [
                            {
                                "wait": "confirmed",
                                "event": "identity.EmailConfirmedV1",
                                "key": {"user": {"$": "/steps/user/user_id"}},
                                "timeout_seconds": 600,
                                "on_timeout": "continue",
                            },
                            {
                                "step": "contact",
                                "action": "crm.create_contact",
                                "input": {"customer_id": "c", "email": {"$": "/data/email"}, "name": "A"},
                                "on_failure": "continue",
                                "retry": {"attempts": 1},
                            },
                        ],
                    ]
                },
                {"state": "Reviewed"},
            ],
            "output": {
                "confirmed": {"$": "/steps/confirmed/user_id", "default": None},
                "contact": {"$": "/steps/contact/contact_id", "default": "none"},
                "by": {"$text": "reviewed by {/steps/review/by}"},
            },
            "example": {
                "input": {"email": "a@example.org"},
                "outputs": {
                    "user": {"user_id": "u-1"},
                    "contact": {"contact_id": "k-1"},
                    "confirmed": {"user_id": "u-1"},
                },
            },
        }
    ],
}


def everything() -> Workflow:
    return generate(read_blueprint(EVERYTHING), what())[0].workflow


def everything_played(**steps: Any) -> Simulation:
    workflow = everything()
    actions = {"identity.create_user": {"user_id": "u-1"}, "crm.create_contact": {"contact_id": "k-1"}}
    return Simulation(
        saga_from(workflow), {"email": "a@example.org"}, actions=actions, steps=steps, registry=Registry(SHIPPED)
    )


def test_every_operation_does_what_its_word_says() -> None:
    sim = everything_played()
    assert sim.status == "waiting"
    sim.forward(seconds=60)
    sim.fact("identity.EmailConfirmedV1", key=("user", "u-1"), data={"user_id": "u-1"})
    sim.approve("review", by="sam")
    assert (sim.status, sim.business_state) == ("succeeded", "Reviewed")
    assert sim.output == {"confirmed": "u-1", "contact": "k-1", "by": "reviewed by sam"}
    assert rehearse_workflow(everything(), Registry(SHIPPED).action_specs()).neutral


def test_a_run_may_go_on_without_what_never_came() -> None:
    sim = everything_played(contact=fails("busy"))
    sim.forward(seconds=60)
    sim.approve("review", by="sam")
    sim.forward(seconds=600)
    assert sim.output == {"confirmed": None, "contact": "none", "by": "reviewed by sam"}


def test_a_refused_approval_unwinds() -> None:
    sim = everything_played()
    sim.forward(seconds=60)
    sim.refuse("review")
    sim.run_until_idle()
    assert (sim.status, sim.ledger_neutral) == ("compensated", True)


def test_a_value_that_a_run_lacks_parks_it_with_its_place() -> None:
    workflow = everything()
    actions = {"identity.create_user": {"user_id": "u-1"}}
    sim = Simulation(saga_from(workflow), {"other": 1}, actions=actions, registry=Registry(SHIPPED))
    assert sim.status == "parked"
    assert "/data/email" in str(sim.explain())


def at(place: str, value: Any) -> dict[str, Any]:
    """EVERYTHING with `value` at that place of its workflow; None takes the field away."""
    document: dict[str, Any] = deepcopy(EVERYTHING)
    target: Any = document
    *way, last = place.strip("/").split("/")
    for part in way:
        target = target[int(part)] if isinstance(target, list) else target[part]
    if value is None:
        del target[last]
    else:
        target[int(last) if isinstance(target, list) else last] = value
    return document


FLOW = "/workflows/0"
OPS = f"{FLOW}/operations"
BRANCH = f"{OPS}/2/together/1"


@pytest.mark.parametrize(
    ("document", "field", "says"),
    [
        ([], "", "dictionary"),
        ({"blueprint": 2, "product": "x", "workflows": []}, "/blueprint", "Input should be 1"),
        (at("/product", "No Name"), "/product", "pattern"),
        (at(f"{FLOW}/name", None), f"{FLOW}/name", "required"),
        (at(f"{FLOW}/colour", "red"), f"{FLOW}/colour", "not permitted"),
        (at(f"{OPS}/0", {"stop": "x"}), f"{OPS}/0", "exactly one of the words step, state"),
        (at(f"{OPS}/0", {"step": "x", "wait": "y"}), f"{OPS}/0", "exactly one of the words"),
        (at(f"{OPS}/0/action", None), f"{OPS}/0/action", "required"),
        (at(OPS, [{"together": [[{"sleep": "x", "seconds": 1}] * 6] * 20}] * 9), OPS, "1080 in all"),
        (at(f"{OPS}/1/seconds", -1), f"{OPS}/1/seconds", "greater than 0"),
        (at(f"{BRANCH}/0/event", "soon"), f"{BRANCH}/0/event", "pattern"),
        (at(f"{FLOW}/on", ["crm.SignupRequestdV1"]), f"{FLOW}/on/0", "do you mean crm.SignupRequestedV1"),
        (at(f"{FLOW}/permission", "do.anything"), f"{FLOW}/permission", "nobody holds 'do.anything'"),
        (at(f"{FLOW}/parked_state", "Stuck"), f"{FLOW}/parked_state", "on_failure"),
        (
            at(f"{OPS}/0/action", "identity.create_usr"),
            f"{OPS}/0/action",
            "do you mean identity.create_user",
        ),
        (at(f"{OPS}/0/undo", "identity.nothing_like"), f"{OPS}/0/undo", "no installed module brings"),
        (at(f"{OPS}/0/input", {"email": "a"}), f"{OPS}/0/input", "lacks name"),
        (at(f"{OPS}/0/input/age", 3), f"{OPS}/0/input/age", "it takes email, name"),
        (at(f"{OPS}/0/input/retry", 3), f"{OPS}/0/input/retry", "word of the step itself"),
        (at(f"{OPS}/0/input/name", {"$": "/date"}), f"{OPS}/0/input/name", "begin with /data or /steps"),
        (at(f"{OPS}/0/input/name", {"$": "data"}), f"{OPS}/0/input/name", "begin it with /"),
        (
            at(f"{OPS}/0/input/name", {"$": "/steps/contact/x"}),
            f"{OPS}/0/input/name",
            "before it are nothing",
        ),
        (at(f"{OPS}/1/sleep", "user"), f"{OPS}/1", "a name of its own"),
        (
            at(f"{BRANCH}/0/key", {"colour": "red"}),
            f"{BRANCH}/0/key/colour",
            "email, user",
        ),
        (
            at(f"{BRANCH}/1/input/name", {"$": "/steps/review/by"}),
            f"{BRANCH}/1/input/name",
            "nothing called 'review' has ended before this",
        ),
        (
            at(f"{FLOW}/output/confirmed", {"$": "/steps/confirmed"}),
            f"{FLOW}/output/confirmed",
            "give a default",
        ),
        (
            at(f"{FLOW}/output/by", {"$text": "by {/steps/nobody}"}),
            f"{FLOW}/output/by",
            "nothing called 'nobody'",
        ),
    ],
)
def test_what_does_not_describe_a_workflow_is_refused_by_its_place_with_a_remedy(
    document: Any, field: str, says: str
) -> None:
    with pytest.raises(BlueprintInvalid) as refused:
        generate(read_blueprint(document), what())
    assert refused.value.field == field
    assert says in str(refused.value)


def test_an_example_that_is_no_good_run_is_refused_and_not_rehearsed() -> None:
    document = at("/workflows/0/example", {"input": {"email": "a@example.org"}})
    workflow = generate(read_blueprint(document), what())[0].workflow
    with pytest.raises(BlueprintInvalid, match="the example of 'everything' is no good run"):
        rehearse_workflow(workflow, Registry(SHIPPED).action_specs())


@pytest.mark.parametrize(
    "path", [*PRODUCTS.glob("*.json"), *(ROOT / "contracts" / "recipes").glob("*.json")], ids=lambda path: path.stem
)
def test_what_ships_fits_the_schema_that_editors_check_by(path: Path) -> None:
    schema = orjson.loads((ROOT / "contracts" / "schema" / "blueprint.json").read_bytes())
    document = orjson.loads(path.read_bytes())
    jsonschema.Draft202012Validator(schema).validate(document)
    document["workflows"][0]["colour"] = "red"
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(document))
    assert (path.parent / document["$schema"]).resolve() == ROOT / "contracts" / "schema" / "blueprint.json"


def test_an_effect_that_nothing_takes_back_is_refused() -> None:
    document = at(f"{OPS}/0/undo", "x.y")
    document["workflows"][0]["operations"][0]["undo"] = None
    with pytest.raises(BlueprintInvalid, match="an effect that nothing takes back") as refused:
        generate(read_blueprint(document), what())
    assert refused.value.field == f"{OPS}/0/undo"


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"template": "nothing"}, "/workflows/0/template", "there is tenant-onboarding"),
        ({"version": 1}, "/workflows/0/version", "greater than or equal to 2"),
        ({"insert": []}, "/workflows/0/insert", "at least 1"),
        (
            {"insert": [{"after": "entitlement", "operations": [{"state": "X"}]}]},
            "/workflows/0/insert/0/after",
            "name one of activate, activation_mail",
        ),
    ],
)
def test_a_derivation_that_fits_no_template_is_refused(change: dict[str, Any], field: str, says: str) -> None:
    document = orjson.loads((PRODUCTS / "clinic.json").read_bytes())
    document["workflows"][0] |= change
    with pytest.raises(BlueprintInvalid) as refused:
        generate(read_blueprint(document), what(clinic.MODULE))
    assert refused.value.field == field
    assert says in str(refused.value)


def test_a_file_is_named_when_it_cannot_be_read_or_says_nonsense(tmp_path: Path) -> None:
    with pytest.raises(BlueprintInvalid, match=r"nowhere\.json: cannot be read"):
        load(tmp_path / "nowhere.json", what())
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(BlueprintInvalid, match=r"half\.json: is not JSON"):
        load(tmp_path / "half.json", what())
    with pytest.raises(BlueprintInvalid, match=r"clinic\.json/workflows/0/insert/0/operations/0/action"):
        load(PRODUCTS / "clinic.json", what())


@saga("patient-intake", version=1)
async def another(run: Run, data: Any) -> None:
    await run.state("Other")


def test_a_blueprint_joins_the_sagas_in_python_and_takes_no_name_and_version_of_theirs() -> None:
    registry = Registry((*SHIPPED, UNWIND, clinic.MODULE))
    joined = with_blueprints(SAGAS, [PRODUCTS / "clinic.json"], registry, registry.action_specs())
    assert {(one.name, one.version) for one in joined} - {(one.name, one.version) for one in SAGAS} == {
        ("tenant-onboarding", 2),
        ("patient-intake", 1),
    }
    with pytest.raises(BlueprintInvalid, match="'patient-intake' version 1 already"):
        with_blueprints([another], [PRODUCTS / "clinic.json"], registry, registry.action_specs())


def test_the_templates_are_checked_as_they_ship() -> None:
    for workflow in templates().values():
        check(workflow, what())
