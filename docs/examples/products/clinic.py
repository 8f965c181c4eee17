"""A product of its own: a clinic. Its module keeps a register of patients for each tenant and admits patients to it.

Nothing here knows the engine; `clinic.json` beside it makes the product's workflows of it.
"""

from __future__ import annotations

from contracts.manifest import (
    AnswerModel,
    Command,
    CommandModel,
    Event,
    EventModel,
    FailureModel,
    Module,
    Personal,
    Query,
    QueryModel,
    UndoModel,
)
from contracts.sdk import Call, Database, Question, Refused, Service, Transport, Tx


class PatientReferredV1(EventModel):
    """A doctor outside refers a patient to the clinic."""

    referral_id: str
    email: Personal
    name: Personal


class RegisterOpenedV1(EventModel):
    register_id: str


class RegisterClosedV1(EventModel):
    register_id: str | None = None


class PatientAdmittedV1(EventModel):
    patient_id: str
    referral_id: str


class PatientDischargedV1(EventModel):
    patient_id: str | None = None


class ClinicRefusedV1(FailureModel):
    """No retry will help: there is no register."""


class ClinicClosedV1(FailureModel):
    """Try again."""


class OpenRegisterV1(CommandModel):
    edition: str


class CloseRegisterV1(UndoModel[OpenRegisterV1, RegisterOpenedV1]):
    pass


class AdmitPatientV1(CommandModel):
    referral_id: str
    name: Personal


class DischargePatientV1(UndoModel[AdmitPatientV1, PatientAdmittedV1]):
    pass


class GetRegisterV1(QueryModel):
    pass


class RegisterV1(AnswerModel):
    register_id: str | None = None
    patients: int = 0


def _command(model: type[CommandModel], success: type[EventModel], undo: str | None = None) -> Command:
    return Command(
        model,
        success=success,
        failures=(ClinicClosedV1,),
        irrecoverable=(ClinicRefusedV1,),
        undo=undo,
        coverage="retriable" if undo is None else "compensatable",
    )


MODULE = Module(
    name="clinic",
    version="1.0.0",
    events=(Event(PatientReferredV1, keys={"referral": "/referral_id"}, subject="/referral_id"),),
    commands=(
        _command(OpenRegisterV1, RegisterOpenedV1, undo="CloseRegisterV1"),
        _command(CloseRegisterV1, RegisterClosedV1),
        _command(AdmitPatientV1, PatientAdmittedV1, undo="DischargePatientV1"),
        _command(DischargePatientV1, PatientDischargedV1),
    ),
    queries=(Query(GetRegisterV1, answer=RegisterV1),),
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS registers (tenant text PRIMARY KEY, register_id text NOT NULL);
CREATE TABLE IF NOT EXISTS patients (tenant text NOT NULL, patient_id text NOT NULL, PRIMARY KEY (tenant, patient_id));
"""


def make(transport: Transport, database: Database) -> Service:
    service = Service(MODULE, transport=transport, database=database, schemas=(SCHEMA,))
    service.handles(OpenRegisterV1)(open_register)
    service.handles(CloseRegisterV1)(close_register)
    service.handles(AdmitPatientV1)(admit)
    service.handles(DischargePatientV1)(discharge)
    service.answers(GetRegisterV1)(get_register)
    return service


async def open_register(command: OpenRegisterV1, call: Call, tx: Tx) -> RegisterOpenedV1:
    register = call.new_id("reg")
    await tx.run(
        "INSERT INTO registers (tenant, register_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", call.tenant, register
    )
    return RegisterOpenedV1(register_id=register)


async def close_register(command: CloseRegisterV1, call: Call, tx: Tx) -> RegisterClosedV1:
    if command.receipt is None:
        return RegisterClosedV1()
    await tx.run(
        "DELETE FROM registers WHERE tenant = $1 AND register_id = $2", call.tenant, command.receipt.register_id
    )
    return RegisterClosedV1(register_id=command.receipt.register_id)


async def admit(command: AdmitPatientV1, call: Call, tx: Tx) -> PatientAdmittedV1:
    if await tx.row("SELECT 1 AS one FROM registers WHERE tenant = $1", call.tenant) is None:
        raise Refused("no_register", "the clinic has no register yet; onboard it first")
    patient = call.new_id("pat")
    await tx.run("INSERT INTO patients (tenant, patient_id) VALUES ($1, $2)", call.tenant, patient)
    return PatientAdmittedV1(patient_id=patient, referral_id=command.referral_id)


async def discharge(command: DischargePatientV1, call: Call, tx: Tx) -> PatientDischargedV1:
    if command.receipt is None:
        return PatientDischargedV1()
    await tx.run("DELETE FROM patients WHERE tenant = $1 AND patient_id = $2", call.tenant, command.receipt.patient_id)
    return PatientDischargedV1(patient_id=command.receipt.patient_id)


async def get_register(query: GetRegisterV1, question: Question, tx: Tx) -> RegisterV1:
    found = await tx.row("SELECT register_id FROM registers WHERE tenant = $1", question.tenant)
    count = await tx.row("SELECT count(*) AS patients FROM patients WHERE tenant = $1", question.tenant)
    assert count is not None
    return RegisterV1(register_id=None if found is None else found["register_id"], patients=count["patients"])
