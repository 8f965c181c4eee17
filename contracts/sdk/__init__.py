"""What a module's developer imports: transports, publishing with confirms, transactional command handling."""
