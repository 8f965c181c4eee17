-- What is append-only stays so, whoever opens the file; and a stream belongs to the tenant of its first event.

CREATE TRIGGER log_no_update BEFORE UPDATE ON log BEGIN SELECT RAISE(ABORT, 'table log is append-only: UPDATE is refused'); END;
CREATE TRIGGER log_no_delete BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'table log is append-only: DELETE is refused'); END;
CREATE TRIGGER starts_no_update BEFORE UPDATE ON starts BEGIN SELECT RAISE(ABORT, 'table starts is append-only: UPDATE is refused'); END;
CREATE TRIGGER starts_no_delete BEFORE DELETE ON starts BEGIN SELECT RAISE(ABORT, 'table starts is append-only: DELETE is refused'); END;
