// Package settings says where a store is and who may use it: plain values that
// the daemon reads from Kubernetes objects and hands to package store. It
// imports the standard library only, so that those who merely prepare settings
// do not link a storage client. It must not read files, the environment or the
// network.
package settings

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind names the provider of a store.
type Kind string

// The kinds of stores.
const (
	// S3 is an object store that speaks the protocol of Amazon S3.
	S3 Kind = "s3"
	// Filesystem is a folder, such as an NFS mount.
	Filesystem Kind = "filesystem"
)

// Checksum is how the content of an upload is protected on its way.
type Checksum string

// The checksums of uploads.
const (
	// ChecksumCRC32C sends x-amz-checksum-crc32c. It is the default: it costs next to nothing.
	ChecksumCRC32C Checksum = "CRC32C"
	// ChecksumMD5 sends Content-MD5, for servers that know nothing newer.
	ChecksumMD5 Checksum = "MD5"
)

// The algorithms that a server may be asked to encrypt with.
const (
	// EncryptionS3 has the server use keys of its own.
	EncryptionS3 = "AES256"
	// EncryptionKMS has the server use a key of its key management.
	EncryptionKMS = "aws:kms"
	// EncryptionKMSTwice is EncryptionKMS in two layers.
	EncryptionKMSTwice = "aws:kms:dsse"
)

// customerKeySize is the size of a CustomerKey in bytes.
const customerKeySize = 32

// Encryption is what an S3 server is asked to do with what it stores, besides
// the encryption of the repositories. The zero Encryption leaves it to the bucket.
type Encryption struct {
	// Algorithm is one of the above, or empty.
	Algorithm string `json:"algorithm,omitempty"`
	// KMSKeyID names the key; empty for that of the bucket or the account. Only with EncryptionKMS and EncryptionKMSTwice.
	KMSKeyID string `json:"kmsKeyID,omitempty"`
	// CustomerKey is a key that goes with each request (SSE-C). It stands alone, and needs TLS.
	CustomerKey CustomerKey `json:"-"`
}

// CustomerKey is 32 random bytes. It is never logged: String hides it.
type CustomerKey []byte

// String hides the key.
func (CustomerKey) String() string { return "(key)" }

// GoString hides the key.
func (CustomerKey) GoString() string { return "(key)" }

func (e Encryption) validate(tls bool) error {
	switch e.Algorithm {
	case "", EncryptionS3, EncryptionKMS, EncryptionKMSTwice:
	default:
		return fmt.Errorf("%q is no server-side encryption (%s, %s or %s)", e.Algorithm, EncryptionS3, EncryptionKMS, EncryptionKMSTwice)
	}

	switch {
	case e.KMSKeyID != "" && e.Algorithm != EncryptionKMS && e.Algorithm != EncryptionKMSTwice:
		return fmt.Errorf("a key of a key management is named, and the server-side encryption is %q", e.Algorithm)
	case e.CustomerKey == nil:
		return nil
	case e.Algorithm != "":
		return fmt.Errorf("a customer key and server-side encryption with %s exclude each other", e.Algorithm)
	case len(e.CustomerKey) != customerKeySize:
		return fmt.Errorf("the customer key is %d bytes long, expected %d", len(e.CustomerKey), customerKeySize)
	case !tls:
		return errors.New("a customer key is only sent over TLS, and the store's address begins with http://")
	default:
		return nil
	}
}

// Settings says where a store is. It holds no secret but the customer key, which hides itself.
type Settings struct {
	Kind Kind `json:"kind"`
	// Prefix below which everything lies: a folder inside the bucket or the
	// path, without a slash at its ends; empty for none.
	Prefix string `json:"prefix,omitempty"`
	// ReadOnly refuses every write and delete.
	ReadOnly bool `json:"readOnly,omitempty"`

	// Path of the folder, absolute; for Filesystem only.
	Path string `json:"path,omitempty"`

	// Bucket and the rest are for S3 only.
	Bucket string `json:"bucket,omitempty"`
	Region string `json:"region,omitempty"`
	// Endpoint is host or host:port; empty means that of Amazon in the region.
	Endpoint string `json:"endpoint,omitempty"`
	// PathStyle puts the bucket into the path and not into the host's name. Where it
	// can't be in the host's name it is in the path anyway.
	PathStyle bool `json:"pathStyle,omitempty"`
	// DoNotUseTLS speaks plain HTTP.
	DoNotUseTLS bool `json:"doNotUseTLS,omitempty"`
	// CACert holds certificates in PEM that are trusted besides the system's.
	CACert []byte `json:"caCert,omitempty"`
	// InsecureSkipTLSVerify trusts any certificate.
	InsecureSkipTLSVerify bool `json:"insecureSkipTLSVerify,omitempty"`
	// Checksum of uploads; empty means ChecksumCRC32C.
	Checksum Checksum `json:"checksum,omitempty"`
	// Encryption by the server.
	Encryption Encryption `json:"encryption,omitzero"`
}

// Validate returns an error for what is missing or contradictory.
func (s Settings) Validate() error {
	if err := validPrefix(s.Prefix); err != nil {
		return err
	}

	switch s.Kind {
	case S3:
		if s.Bucket == "" {
			return errors.New("settings of an S3 store name no bucket")
		}

		if strings.ContainsAny(s.Endpoint, "/ ") {
			return fmt.Errorf("endpoint %q is not a host, or a host and a port", s.Endpoint)
		}

		return s.Encryption.validate(!s.DoNotUseTLS)
	case Filesystem:
		if !strings.HasPrefix(s.Path, "/") {
			return fmt.Errorf("path %q of a file-system store is not absolute", s.Path)
		}
	default:
		return fmt.Errorf("%q is not a kind of store (s3 or filesystem)", s.Kind)
	}

	return nil
}

// validPrefix refuses what would lead out of the bucket or path.
func validPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}

	for part := range strings.SplitSeq(prefix, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("prefix %q is not a clean relative path", prefix)
		}
	}

	return nil
}

// Credentials open a store. They are never logged: String hides them.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	// Expires is when the store will refuse them; zero if that isn't known.
	Expires time.Time
}

// String hides the credentials.
func (Credentials) String() string { return "(credentials)" }

// GoString hides the credentials.
func (Credentials) GoString() string { return "(credentials)" }

// Source returns the credentials as they are now. It is asked when a store is
// first used, again whenever the store refuses them, and shortly before they
// expire, by several goroutines at a time, so that a rotated Secret is taken up
// without a restart.
type Source interface {
	Credentials(ctx context.Context) (Credentials, error)
}

// SourceFunc is a Source made of a function.
type SourceFunc func(ctx context.Context) (Credentials, error)

// Credentials calls f.
func (f SourceFunc) Credentials(ctx context.Context) (Credentials, error) { return f(ctx) }

// Static is a Source that always gives the same credentials.
type Static Credentials

// Credentials returns s.
func (s Static) Credentials(context.Context) (Credentials, error) { return Credentials(s), nil }
