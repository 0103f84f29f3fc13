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

// Settings says where a store is. It holds no secret.
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
	// PathStyle puts the bucket into the path and not into the host's name.
	PathStyle bool `json:"pathStyle,omitempty"`
	// DoNotUseTLS speaks plain HTTP.
	DoNotUseTLS bool `json:"doNotUseTLS,omitempty"`
	// CACert holds certificates in PEM that are trusted besides the system's.
	CACert []byte `json:"caCert,omitempty"`
	// InsecureSkipTLSVerify trusts any certificate.
	InsecureSkipTLSVerify bool `json:"insecureSkipTLSVerify,omitempty"`
	// Checksum of uploads; empty means ChecksumCRC32C.
	Checksum Checksum `json:"checksum,omitempty"`
}

// Validate tells what is missing or contradictory.
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
}

// String hides the credentials.
func (Credentials) String() string { return "(credentials)" }

// GoString hides the credentials.
func (Credentials) GoString() string { return "(credentials)" }

// Source gives the credentials as they are now. It is asked when a store is
// first used and again whenever the store refuses them, by several goroutines
// at a time, so that a rotated Secret is taken up without a restart.
type Source interface {
	Credentials(ctx context.Context) (Credentials, error)
}

// SourceFunc is a Source made of a function.
type SourceFunc func(ctx context.Context) (Credentials, error)

// Credentials calls f.
func (f SourceFunc) Credentials(ctx context.Context) (Credentials, error) { return f(ctx) }

// Static is a Source that always gives the same credentials.
type Static Credentials

// Credentials gives s.
func (s Static) Credentials(context.Context) (Credentials, error) { return Credentials(s), nil }
