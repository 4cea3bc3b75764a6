"""Commands that measure this project: speed, calibration of the statistics, reliability."""
