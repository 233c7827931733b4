"""Stands before the package of this name, whose import builds a grammar of IRIs for seconds.

jsonschema does without where it is missing, and no notebook's schema has an IRI; every process of
the tests that reads a notebook would wait for it.
"""

raise ImportError("the tests do without it")
