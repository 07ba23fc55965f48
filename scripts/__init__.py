"""Thin commands: parse, wire, call. Each is testable as `main(argv)`."""
