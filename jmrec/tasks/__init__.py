"""What can be trained: each module defines one `jmrec.types.Task`."""
