-- What each tenant has cost the installation, per UTC day: added to by every process every few seconds.

CREATE TABLE accounts (
    tenant          text NOT NULL,
    day             date NOT NULL,
    decide_seconds  double precision NOT NULL,
    project_seconds double precision NOT NULL,
    rows            bigint NOT NULL,
    sends           bigint NOT NULL,
    actions         bigint NOT NULL,
    PRIMARY KEY (tenant, day)
);
CREATE INDEX accounts_day ON accounts (day);
