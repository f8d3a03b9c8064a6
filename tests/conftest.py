"""Settings for all tests."""

import os

from hypothesis import settings

# A busy machine makes single examples slow; how long one takes says nothing about the code.
settings.register_profile("keysync", deadline=None)
# In CI the examples are the same each time, so a result depends on the change alone. Elsewhere each run tries others.
settings.register_profile("keysync-ci", deadline=None, derandomize=True)
settings.load_profile("keysync-ci" if os.environ.get("CI") == "true" else "keysync")
