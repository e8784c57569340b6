"""A shop with a catalogue in SQLite: the program whose tests take too long."""
