package contract

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Place returns a short digest of where a BackupStorageLocation keeps its data: of its provider, bucket,
// prefix and config. A repository that was found in one place says nothing of another.
func Place(provider, bucket, prefix string, config map[string]string) (string, error) {
	parts := []string{provider, bucket, prefix}
	for _, key := range slices.Sorted(maps.Keys(config)) {
		parts = append(parts, key, config[key])
	}

	// Lengths are part of the encoding, so that no two places read alike.
	text, err := json.Marshal(parts)
	if err != nil {
		return "", fmt.Errorf("encode the place of a location: %w", err)
	}

	sum := sha256.Sum256(text)

	return hex.EncodeToString(sum[:8]), nil
}
