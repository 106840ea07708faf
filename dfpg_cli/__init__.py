"""The ``basicsr`` command.

This package lies beside ``dfpg_plugin``, not in it: every import of a part of ``dfpg_plugin`` registers its components,
which imports torch and basicsr and takes seconds. ``basicsr --help`` needs neither.
"""
