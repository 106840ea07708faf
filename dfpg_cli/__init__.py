"""The ``basicsr`` command.

The package lies beside ``dfpg_plugin``, not inside it. Importing any part of ``dfpg_plugin`` registers its components.
That imports torch and basicsr, and takes seconds. ``basicsr --help`` needs neither.
"""
