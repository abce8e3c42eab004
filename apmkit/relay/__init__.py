"""What leaves the hot path: redaction, OTLP bytes, the journal, snapshots, delivery."""
