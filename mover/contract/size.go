package contract

import "fmt"

// Size returns a number of bytes for people, in powers of 1024.
func Size(bytes int64) string {
	const unit = 1024

	if bytes < unit {
		return fmt.Sprintf("%d B", bytes)
	}

	value, names := float64(bytes)/unit, []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for value >= unit-0.05 && len(names) > 1 {
		value /= unit
		names = names[1:]
	}

	return fmt.Sprintf("%.1f %s", value, names[0])
}
