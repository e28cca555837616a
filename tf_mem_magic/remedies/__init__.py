"""The remedies: one file or one folder each; this folder is the registry.

A remedy is a module with ``KEY``, ``TITLE``, ``EXAMPLES`` and ``propose(context) -> tuple[Proposal | Declined, ...]``:
a file here, or ``remedy.py`` in a folder of its own with all that belongs to it; ``deploy`` is a pack of three. Adding
one is adding its file or folder. One whose edit may lie in any function that the cell runs says ``IN_HELPERS = True``
(:mod:`tf_mem_magic.remedies._engine.asking`). One that is made for what failed to be made, such as
a list that grows, names these situations as its ``HELPS``: they rule it out no longer. One that makes a model smaller
for deployment says ``AFTER_SUCCESS = True``: it is asked after a run that went well too. One that knows a better
change once its own has fitted has a function ``after_fit``.
"""
