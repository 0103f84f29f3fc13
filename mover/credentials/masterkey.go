package credentials

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

const (
	masterKeySize    = 32
	repositoryIDSize = 16

	passwordInfo    = "estiba.dev/repository-password/v1/"
	fingerprintInfo = "estiba.dev/key-fingerprint/v1"

	fingerprintSize = 16
	// minDistinct is how many different bytes a key must have. 32 random bytes
	// have fewer than 16 of them less often than once in 10^15.
	minDistinct = 16
)

// ErrWeakKey means that what was given as a master key is not 32 random bytes.
var ErrWeakKey = errors.New("the master key is not 32 random bytes")

// MasterKey is the one secret of an install, of which the passwords of all its
// repositories are derived. It never shows itself in logs.
type MasterKey struct{ key [masterKeySize]byte }

// NewMasterKey makes a key of random, which is crypto/rand.Reader but in tests.
func NewMasterKey(random io.Reader) (MasterKey, error) {
	var k MasterKey
	if _, err := io.ReadFull(random, k.key[:]); err != nil {
		return MasterKey{}, fmt.Errorf("make a master key: %w", err)
	}

	return k, checkStrength(k.key[:])
}

// ParseMasterKey reads a key as the Secret holds it: 32 bytes in base64
// (standard alphabet, padded). It refuses what can't be random: text, few
// different bytes, the well-known passwords of other tools. Errors wrap
// ErrWeakKey and do not quote the key.
func ParseMasterKey(encoded []byte) (MasterKey, error) {
	var k MasterKey

	text := bytes.TrimSpace(encoded)
	if len(text) == 0 {
		return k, fmt.Errorf("%w: it is empty", ErrWeakKey)
	}

	raw, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return k, fmt.Errorf("%w: it is not base64", ErrWeakKey)
	}

	if len(raw) != masterKeySize {
		return k, fmt.Errorf("%w: it has %d bytes", ErrWeakKey, len(raw))
	}

	if err := checkStrength(raw); err != nil {
		return k, err
	}

	copy(k.key[:], raw)

	return k, nil
}

func checkStrength(raw []byte) error {
	distinct := map[byte]struct{}{}
	printable := true

	for _, b := range raw {
		distinct[b] = struct{}{}
		printable = printable && b >= ' ' && b <= '~'
	}

	if len(distinct) < minDistinct {
		return fmt.Errorf("%w: it repeats a few bytes", ErrWeakKey)
	}

	if printable {
		return fmt.Errorf("%w: it is text", ErrWeakKey)
	}

	return nil
}

// Encode returns the key as the Secret holds it.
func (k MasterKey) Encode() []byte {
	return base64.StdEncoding.AppendEncode(nil, k.key[:])
}

// IsZero reports whether there is no key.
func (k MasterKey) IsZero() bool { return k == MasterKey{} }

// String hides the key.
func (MasterKey) String() string { return "(master key)" }

// GoString hides the key.
func (MasterKey) GoString() string { return "(master key)" }

// Fingerprint identifies the key, 32 characters of hex, and says nothing else
// about the key: it lies in the bucket beside the repositories.
func (k MasterKey) Fingerprint() (string, error) {
	derived, err := k.derive(fingerprintInfo)
	if err != nil {
		return "", err
	}

	sum := sha256.Sum256(append([]byte(fingerprintInfo), derived...))

	return hex.EncodeToString(sum[:fingerprintSize]), nil
}

// RepositoryPassword returns the password of the repository of an ID, 64
// characters of hex. It depends on the key and the ID alone, for ever.
func (k MasterKey) RepositoryPassword(id string) (string, error) {
	if err := CheckRepositoryID(id); err != nil {
		return "", err
	}

	derived, err := k.derive(passwordInfo + id)
	if err != nil {
		return "", err
	}

	return hex.EncodeToString(derived), nil
}

func (k MasterKey) derive(info string) ([]byte, error) {
	if k.IsZero() {
		return nil, fmt.Errorf("%w: there is none", ErrWeakKey)
	}

	derived, err := hkdf.Key(sha256.New, k.key[:], nil, info, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive from the master key: %w", err)
	}

	return derived, nil
}

// NewRepositoryID makes the ID of a repository of random, which is
// crypto/rand.Reader but in tests: 26 characters of lower-case base32.
func NewRepositoryID(random io.Reader) (string, error) {
	var raw [repositoryIDSize]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", fmt.Errorf("make a repository ID: %w", err)
	}

	return idEncoding().EncodeToString(raw[:]), nil
}

// CheckRepositoryID returns an error if id is not the ID of a repository.
func CheckRepositoryID(id string) error {
	raw, err := idEncoding().DecodeString(id)
	if err != nil || len(raw) != repositoryIDSize || idEncoding().EncodeToString(raw) != id {
		return fmt.Errorf("%q is not a repository ID (26 characters a-z and 2-7)", id)
	}

	return nil
}

func idEncoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}
