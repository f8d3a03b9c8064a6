"""Three scripts that do the task of keysync with the SDKs, and keysync's daemon with the same measurement."""
