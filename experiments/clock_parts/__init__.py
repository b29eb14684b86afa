"""Sections of the clock job, a file each: `section(settings, machine) -> Section`."""
