package store

import (
	"strings"

	"github.com/kopia/kopia/repo/blob"

	"github.com/estiba-dev/estiba/mover/engine"
)

// maxBlobID is the longest ID that is let through. kopia's own are below 100
// characters; the limit leaves room below the 255 of a file's name for the
// endings that its file-system storage adds.
const maxBlobID = 200

// ValidBlobID reports whether id may name a blob of a repository: letters,
// digits and "_.-", no ".." and no dot at its start. Such an ID can't lead out
// of the folder it is put into, on an object store or a file system.
func ValidBlobID(id blob.ID) bool {
	return id != "" && validBlobPrefix(id)
}

// validBlobPrefix reports whether blobs may be listed by prefix.
func validBlobPrefix(prefix blob.ID) bool {
	if len(prefix) > maxBlobID || strings.HasPrefix(string(prefix), ".") || strings.Contains(string(prefix), "..") {
		return false
	}

	for _, c := range []byte(prefix) {
		if !isBlobIDByte(c) {
			return false
		}
	}

	return true
}

func isBlobIDByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	default:
		return c == '_' || c == '.' || c == '-'
	}
}

func checkBlobID(id blob.ID) error {
	if !ValidBlobID(id) {
		return engine.Errorf(engine.CodeInvalidRequest, "blob ID %q is not allowed", id)
	}

	return nil
}
