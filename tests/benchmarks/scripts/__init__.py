"""What keysync is compared with: three scripts that do the same with the SDKs, and keysync's daemon under the same stopwatch."""
