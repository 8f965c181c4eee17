"""The code-first sagas that ship with Unwind, over the shipped modules' contracts. `SHIPPED` is what a process loads
unless told otherwise.
"""

from __future__ import annotations

import importlib

from contracts.problems import Problem
from engine.plan.code import Saga
from engine.sagas.customer_onboarding import customer_onboarding
from engine.sagas.direct_command import direct_command
from engine.sagas.tenant_closure import tenant_closure
from engine.sagas.tenant_notice import tenant_notice
from engine.sagas.tenant_onboarding import tenant_onboarding
from engine.sagas.tenant_reinstatement import tenant_reinstatement
from engine.sagas.tenant_suspension import tenant_suspension

SHIPPED: tuple[Saga, ...] = (
    tenant_onboarding,
    tenant_suspension,
    tenant_reinstatement,
    tenant_closure,
    tenant_notice,
    customer_onboarding,
    direct_command,
)


class SagaModuleInvalid(Problem):
    """A module named in the settings cannot be imported, or declares no saga."""

    code = "saga_module_invalid"
    title = "A module of sagas cannot be loaded"
    exit_code = 2


def load_sagas(modules: tuple[str, ...]) -> tuple[Saga, ...]:
    """Every saga declared at the top level of these Python modules, in their order. Raises `SagaModuleInvalid`."""
    found: list[Saga] = []
    for name in modules:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise SagaModuleInvalid(f"{name} cannot be imported: {error}", field="sagas") from error
        declared = [value for value in vars(module).values() if isinstance(value, Saga)]
        if not declared:
            raise SagaModuleInvalid(f"{name} declares no @saga at its top level", field="sagas")
        found.extend(saga for saga in declared if saga not in found)
    return tuple(found)
