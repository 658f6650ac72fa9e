"""A module that cannot be imported, as code of a project may be."""

raise RuntimeError("this module cannot be imported")
