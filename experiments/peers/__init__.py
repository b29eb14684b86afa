"""The benchmark's contestants: each a child process that is told a case and answers with seconds."""
