"""What holds for all tests."""

from hypothesis import settings

# A busy machine makes single examples slow; how long one takes says nothing about the code.
settings.register_profile("keysync", deadline=None)
settings.load_profile("keysync")
