"""What stands between the engine and the world: egress, redaction, permissions and tokens, signatures; a file each."""
