package main

import "fmt"

// size returns a number of bytes for people, in binary units.
func size(n int64) string {
	const step = 1024

	if n < step {
		return fmt.Sprintf("%d B", n)
	}

	value, unit := float64(n)/step, 0
	for value >= step && unit < 3 {
		value, unit = value/step, unit+1
	}

	return fmt.Sprintf("%.1f %ciB", value, "KMGT"[unit])
}
