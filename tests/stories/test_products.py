"""Two products from one template: each brings a module and a blueprint of its own, and nothing else. Their tenants are
onboarded with one step more, which unwinds with the others, and each has a saga that no other product has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any, Final

import orjson
import pytest

from contracts.blueprint import BlueprintInvalid
from contracts.sdk import open_database, open_transport
from docs.examples.products import clinic, shop
from tests.stories.house import ROOT, House, MovableClock, Record, Stack, until
from tests.stories.tenants import subscription_of, tenant_of
from tests.stories.understudy import fact

PRODUCTS: Final[dict[str, tuple[ModuleType, str]]] = {
    "clinic": (clinic, "patient_register"),
    "shop": (shop, "storefront"),
}


@asynccontextmanager
async def product_house(stack: Stack, product: str, **more: Any) -> AsyncIterator[House]:
    """The shipped house with the product's module beside it and its blueprint in the settings."""
    module, _ = PRODUCTS[product]
    blueprint = ROOT / "docs" / "examples" / "products" / f"{product}.json"
    async with House(stack, contracts=(module.MODULE,), blueprints=(blueprint,), **more) as house:
        transport = open_transport(house.bus_url, name=product)
        url = stack.database_url
        where = f"sqlite://{stack.folder / product}.sqlite" if url is None else f"{url}?schema=module_{product}"
        service = module.make(transport, open_database(where))
        await service.start()
        try:
            yield house
        finally:
            await service.stop()


async def _own_effect(house: House, product: str, tenant: str) -> bool:
    """Whether what the product's own step makes is there."""
    if product == "clinic":
        register = await house.ask(clinic.MODULE, clinic.GetRegisterV1(), clinic.RegisterV1, tenant)
        return register.register_id is not None
    return (await house.ask(shop.MODULE, shop.GetShopV1(), shop.ShopV1, tenant)).address is not None


async def _run_of(house: House, tenant: str, workflow: str) -> str:
    page = await until(lambda: house.api.get("/v1/runs", tenant=tenant, workflow=workflow), lambda page: page["items"])
    return str(page["items"][0]["run_id"])


@pytest.mark.acceptance("H13")
@pytest.mark.parametrize("product", PRODUCTS)
async def test_a_product_onboards_its_tenants_with_one_step_more_which_unwinds_with_the_others(
    stack: Stack, product: str
) -> None:
    _, added = PRODUCTS[product]
    async with product_house(stack, product) as house:
        listed = {one["name"]: one for one in (await house.api.get("/v1/workflows"))["items"]}
        assert listed["tenant-onboarding"]["version"] == 2

        run = await house.register("acme")
        ended = await house.until_status(run, "succeeded")
        assert (ended["business_state"], ended["workflow_version"]) == ("Active", 2)
        steps = await house.steps(run)
        universal = {"register", "begin", "subscription", "entitlements", "owner", "activation_mail", "activate"}
        assert set(steps) == universal | {added}
        assert (await tenant_of(house, "acme")).state == "Active"
        assert await _own_effect(house, product, "acme")

        await house.script("failing", "tenancy.ActivateTenantV1", "irrecoverable")
        run = await house.register("failing")
        ended = await house.until_status(run, "compensated")
        assert (ended["business_state"], ended["left"]) == ("ProvisioningFailed", [])
        timeline = await house.timeline(run)
        kept = ("register", "activation_mail")
        done = [entry["event"]["step"] for entry in timeline if entry["topic"] == "step.succeeded"]
        undone = [entry["event"]["step"] for entry in timeline if entry["topic"] == "undo.succeeded"]
        assert undone == [step for step in done[::-1] if step not in kept]
        assert added in undone
        assert not await _own_effect(house, product, "failing")
        assert (await subscription_of(house, "failing")).live == 0


async def test_a_blueprint_whose_module_is_not_installed_stops_the_start_and_the_doctor_says_so(stack: Stack) -> None:
    blueprint = ROOT / "docs" / "examples" / "products" / "clinic.json"
    with pytest.raises(BlueprintInvalid, match=r"no installed module brings clinic\.open_register"):
        async with House(stack, blueprints=(blueprint,)):
            pass
    async with product_house(stack, "clinic") as house:
        # The command line runs in a process of its own, which finds the product only where it is installed.
        code, said, _ = await house.cli_raw("doctor")
        found = {one["check"]: one for one in orjson.loads(said)}
        assert (code, found["sagas"]["state"]) == (1, "wrong")
        assert "install the module, or correct the name" in found["sagas"]["detail"]


@pytest.mark.acceptance("H13")
async def test_a_clinic_admits_referred_patients_by_a_saga_of_its_own(stack: Stack) -> None:
    async def patients(house: House) -> int:
        return (await house.ask(clinic.MODULE, clinic.GetRegisterV1(), clinic.RegisterV1, "acme")).patients

    async with product_house(stack, "clinic") as house:
        await house.until_status(await house.register("acme"), "succeeded")
        await house.ear.send(_referral("ref-1"), copies=3)
        run = await house.until_status(await _run_of(house, "acme", "patient-intake"), "succeeded")
        assert (run["business_state"], await patients(house)) == ("Admitted", 1)
        page = await house.api.get("/v1/runs", tenant="acme", workflow="patient-intake")
        assert len(page["items"]) == 1

        await house.script("acme", "notifications.SendNotificationV1", "irrecoverable")
        await house.ear.send(_referral("ref-2"))
        ended: list[Record] = await until(
            lambda: _ended(house, "patient-intake", "compensated"), lambda found: len(found) == 1
        )
        assert ended[0]["left"] == []
        assert await patients(house) == 1


@pytest.mark.acceptance("H13")
async def test_a_shop_ships_what_is_paid_and_frees_what_is_not_by_a_saga_of_its_own(stack: Stack) -> None:
    clock = MovableClock()

    async def reserved(house: House) -> int:
        return (await house.ask(shop.MODULE, shop.GetShopV1(), shop.ShopV1, "acme")).reserved

    async with product_house(stack, "shop", clock=clock) as house:
        await house.until_status(await house.register("acme"), "succeeded")
        for order in ("paid", "unpaid"):
            await house.ear.send(fact("shop.OrderPlacedV1", {"order_id": order, "item": "a chair"}, tenant="acme"))
        await until(lambda: _ended(house, "order-fulfilment", "waiting"), lambda found: len(found) == 2)
        await house.ear.send(fact("shop.OrderPaidV1", {"order_id": "paid"}, tenant="acme"))
        shipped = await until(lambda: _ended(house, "order-fulfilment", "succeeded"), bool)
        assert shipped[0]["business_state"] == "Shipped"
        assert await reserved(house) == 2
        clock.forward(days=3, hours=1)
        freed = await until(lambda: _ended(house, "order-fulfilment", "compensated"), bool)
        assert freed[0]["error_code"] == "payment_missing"
        assert await reserved(house) == 1


async def _ended(house: House, workflow: str, status: str) -> list[Record]:
    page = await house.api.get("/v1/runs", tenant="acme", workflow=workflow, status=status)
    found = [await house.run(one["run_id"]) for one in page["items"]]
    return [one for one in found if one is not None]


def _referral(referral: str) -> Any:
    data = {"referral_id": referral, "email": "bob@example.org", "name": "Bob"}
    return fact("clinic.PatientReferredV1", data, tenant="acme", id=f"referral-{referral}")


@pytest.mark.acceptance("H13")
async def test_a_wrong_blueprint_is_refused_on_the_command_line_by_its_place(stack: Stack) -> None:
    wrong = stack.folder / "wrong.json"
    text = (ROOT / "contracts" / "recipes" / "tenant-onboarding.json").read_text()
    wrong.write_text(text.replace("billing.create_subscription", "billing.create_subscriptio"))
    async with House(stack) as house:
        code, _, complaint = await house.cli_raw("blueprints", "check", str(wrong))
        assert code == 2
        assert "/workflows/0/operations/4/together/0/0/action" in complaint
        assert "do you mean billing.create_subscription" in complaint
        shown = await house.cli("blueprints", "check", str(ROOT / "contracts" / "recipes" / "tenant-onboarding.json"))
        undo = {step["step"]: step["undo"] for step in shown[0]["steps"]}
        assert undo["owner"].startswith("identity.disable_user")
        for product in PRODUCTS:
            file = str(ROOT / "docs" / "examples" / "products" / f"{product}.json")
            words = (file, "--with", f"docs.examples.products.{product}:MODULE")
            assert {one["product"] for one in await house.cli("blueprints", "check", *words)} == {product}
            assert all(one["neutral"] for one in await house.cli("blueprints", "rehearse", *words))
        rehearsed = await house.cli(
            "blueprints", "rehearse", str(ROOT / "contracts" / "recipes" / "tenant-onboarding.json")
        )
        assert (rehearsed[0]["neutral"], rehearsed[0]["uncovered"], len(rehearsed[0]["cases"])) == (True, [], 21)
