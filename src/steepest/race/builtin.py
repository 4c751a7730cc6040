"""The tasks that have a name: each a `Task`, or a function that makes one of a preset and options."""

BUILTIN = {
    "digits": "steepest.race.tasks.digits:task",
    "chars": "steepest.race.tasks.chars:task",
    "saddle": "steepest.race.tasks.saddle:task",
    "cifar": "steepest.race.tasks.cifar:task",
    "gpt": "steepest.race.tasks.gpt:task",
    "mlp": "steepest.race.tasks.mlp:task",
    "autoencoder": "steepest.race.tasks.autoencoder:task",
    "cnn": "steepest.race.tasks.cnn:task",
    "lstm": "steepest.race.tasks.lstm:task",
    "charlm": "steepest.race.tasks.charlm:task",
    "invariance": "steepest.race.tasks.invariance:task",
    "sst2": "steepest.race.tasks.sst2:task",
    "cola": "steepest.race.tasks.cola:task",
    "llm": "steepest.race.tasks.llm:task",
}

# Raced when no task is named: they need no data but what comes with the race's dependencies.
DEFAULT_TASKS = ("digits", "chars")
