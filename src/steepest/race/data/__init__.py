"""Data of the tasks: where files are looked for, how they are read, and what is wrong with a bad one.

Files are read as their authors distribute them. Nothing here knows of models or races; an error is a
:class:`~steepest.race.data.lookup.DataError` that names the file.
"""
