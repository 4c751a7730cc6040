"""The tasks that have a name: each a `Task`, or a function that makes one of a preset and options."""

BUILTIN = {
    "digits": "steepest.race.tasks.digits:task",
    "chars": "steepest.race.tasks.chars:task",
}

# Raced when no task is named: they need no data but what comes with the race's dependencies.
DEFAULT_TASKS = ("digits", "chars")
