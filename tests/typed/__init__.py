"""Code as a typed project writes it: never run, only checked by `tox -e types`, as strictly as the package itself.

``assert_type`` says what the package must go on promising; ``wrong.py`` has what must go on being refused.
"""
