package credentials

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/credentials/role"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// The keys of a location's spec.config that say where the store is. Those of
// aws are the ones of Velero's plugin for it; its other keys concern requests
// that Estiba does not make.
const (
	configRegion    = "region"
	configS3URL     = "s3Url"
	configPathStyle = "s3ForcePathStyle"
	configSkipTLS   = "insecureSkipTLSVerify"
	configCACert    = "caCert"
	configProfile   = "profile"
	configChecksum  = "checksumAlgorithm"

	configEncryption     = "serverSideEncryption"
	configKMSKey         = "kmsKeyId"
	configCustomerFile   = "customerKeyEncryptionFile"
	configCustomerSecret = "customerKeyEncryptionSecret"
	// configPath is the folder of a file-system location, absolute, as the daemon and the controller see it.
	configPath = "path"
)

// Secrets reads a key of a Secret in Velero's namespace. What fails for a
// passing reason comes back as an *engine.Error of a retryable code; a Secret
// that does not exist as ErrNoSecret.
type Secrets func(ctx context.Context, name, key string) ([]byte, error)

// ErrNoSecret is for a Secret that does not exist.
var ErrNoSecret = errors.New("does not exist")

// Surroundings are what a location's secrets are read from.
type Surroundings struct {
	// Secrets of Velero's namespace.
	Secrets Secrets
	// Fallback is the Secret of locations that name none; DefaultSecret in an
	// ordinary install. Where it has no name or does not exist, the process's own role counts.
	Fallback corev1.SecretKeySelector
	// Role is what the process was given by its own surroundings.
	Role role.Surroundings
}

// Location is a BackupStorageLocation, read.
type Location struct {
	Settings settings.Settings
	// Secret holds the credentials; empty for a file system, and where the process's own role counts.
	Secret corev1.SecretKeySelector
	// OrRole is set where the location names no Secret: if there is none, the process's own role counts.
	OrRole bool
	// Profile in the Secret's file.
	Profile string
}

// DefaultSecret is where `velero install` puts the credentials of locations that name none.
func DefaultSecret() corev1.SecretKeySelector {
	return corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: "cloud-credentials"}, Key: "cloud",
	}
}

// FromLocation reads a location. Providers are "aws" and "velero.io/aws" (any
// S3 server), and "filesystem" (a folder, config key "path", that is mounted
// into the daemon and the controller). Errors name the location and the field.
func FromLocation(ctx context.Context, bsl *velerov1.BackupStorageLocation, from Surroundings) (Location, error) {
	f := fields{name: bsl.Namespace + "/" + bsl.Name, config: bsl.Spec.Config}

	var l Location

	switch bsl.Spec.Provider {
	case "aws", "velero.io/aws":
		l = f.aws(bsl)
	case "filesystem":
		l = f.filesystem()
	default:
		f.fail("spec.provider", fmt.Errorf("provider %q is not supported (aws or filesystem)", bsl.Spec.Provider))
	}

	l.Settings.ReadOnly = bsl.Spec.AccessMode == velerov1.BackupStorageLocationAccessModeReadOnly

	if o := bsl.Spec.ObjectStorage; o != nil {
		l.Settings.Prefix = f.prefix(o.Prefix)
		l.Settings.CACert = f.caCert(ctx, o, from.Secrets)
	}

	if l.Settings.Kind == settings.S3 {
		l.Settings.Encryption = f.encryption(ctx, from)
		l.Secret, l.OrRole = from.Fallback, true

		if c := bsl.Spec.Credential; c != nil {
			l.Secret, l.OrRole = *c, false
		}

		if (l.Secret.Name == "" || l.Secret.Key == "") && !l.OrRole {
			f.fail("spec.credential", errors.New("it names no Secret, or no key in it"))
		}
	}

	if f.err == nil {
		f.fail("spec", l.Settings.Validate())
	}

	return l, f.err
}

// fields reads a location's fields, and keeps the first error.
type fields struct {
	name   string
	config map[string]string
	err    error
}

func (f *fields) fail(field string, err error) {
	if err == nil || f.err != nil {
		return
	}

	code := engine.CodeInvalidRequest

	var coded *engine.Error
	if errors.As(err, &coded) {
		code = coded.Code
	}

	f.err = engine.Errorf(code, "BackupStorageLocation %s: %s: %w", f.name, field, err)
}

func (f *fields) aws(bsl *velerov1.BackupStorageLocation) Location {
	l := Location{
		Settings: settings.Settings{
			Kind: settings.S3, Region: f.config[configRegion],
			PathStyle: f.bool(configPathStyle), InsecureSkipTLSVerify: f.bool(configSkipTLS),
		},
		Profile: f.config[configProfile],
	}

	if bsl.Spec.ObjectStorage == nil || bsl.Spec.ObjectStorage.Bucket == "" {
		f.fail("spec.objectStorage.bucket", errors.New("no bucket is named"))
	} else {
		l.Settings.Bucket = bsl.Spec.ObjectStorage.Bucket
	}

	l.Settings.Endpoint, l.Settings.DoNotUseTLS = f.endpoint()
	l.Settings.Checksum = f.checksum()

	return l
}

// endpoint takes the s3Url apart.
func (f *fields) endpoint() (host string, plain bool) {
	raw := strings.TrimSpace(f.config[configS3URL])
	if raw == "" {
		return "", false
	}

	u, err := url.Parse(raw)

	switch {
	case err != nil:
		f.fail("spec.config.s3Url", errors.New("it is not a URL"))
	case u.Scheme != "http" && u.Scheme != "https":
		f.fail("spec.config.s3Url", fmt.Errorf("%q begins with neither http:// nor https://", raw))
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		f.fail("spec.config.s3Url", errors.New("it must be a scheme and a host, with a port where needed"))
	case u.Path != "" && u.Path != "/":
		f.fail("spec.config.s3Url", fmt.Errorf("it has a path (%s); the bucket goes into spec.objectStorage.bucket, folders into its prefix", u.Path))
	default:
		return u.Host, u.Scheme == "http"
	}

	return "", false
}

// checksum follows Velero's plugin, where an empty value, given, means a server
// that knows none of the newer checksums; any newer one is as good to us.
func (f *fields) checksum() settings.Checksum {
	if algorithm, given := f.config[configChecksum]; given && algorithm == "" {
		return settings.ChecksumMD5
	}

	return settings.ChecksumCRC32C
}

// encryption follows Velero's plugin: a key of the key management goes before the
// name of an algorithm, and so does a customer key; of keys there is one at most.
func (f *fields) encryption(ctx context.Context, from Surroundings) (e settings.Encryption) {
	const field = "spec.config."

	keys := 0

	for _, key := range []string{configKMSKey, configCustomerFile, configCustomerSecret} {
		if f.config[key] != "" {
			keys++
		}
	}

	if keys > 1 {
		f.fail("spec.config", fmt.Errorf("%s, %s and %s exclude each other", configKMSKey, configCustomerFile, configCustomerSecret))
		return e
	}

	e.Algorithm = f.config[configEncryption]
	if err := (settings.Settings{Kind: settings.S3, Bucket: "any", Encryption: e}).Validate(); err != nil {
		f.fail(field+configEncryption, err)
	}

	switch {
	case f.config[configKMSKey] != "":
		e = settings.Encryption{Algorithm: settings.EncryptionKMS, KMSKeyID: f.config[configKMSKey]}
	case f.config[configCustomerFile] != "":
		key, err := from.Role.File(f.config[configCustomerFile])
		if err != nil {
			f.fail(field+configCustomerFile, fmt.Errorf("%w (the file is wanted in the pods of the daemon and the controller, too; %s needs no file)", err, configCustomerSecret))
		}

		// Velero's plugin takes the first 32 bytes of a file.
		e = settings.Encryption{CustomerKey: key[:min(len(key), customerKeySize)]}
	case f.config[configCustomerSecret] != "":
		e = settings.Encryption{CustomerKey: f.customerKey(ctx, from.Secrets)}
	}

	return e
}

// customerKeySize is what Velero's plugin reads of a file.
const customerKeySize = 32

func (f *fields) customerKey(ctx context.Context, secrets Secrets) settings.CustomerKey {
	const field = "spec.config." + configCustomerSecret

	name, key, ok := strings.Cut(f.config[configCustomerSecret], "/")
	if !ok || name == "" || key == "" || strings.Contains(key, "/") {
		f.fail(field, fmt.Errorf("%q is not the name of a Secret and of a key in it, as in name/key", f.config[configCustomerSecret]))
		return nil
	}

	content, err := secrets(ctx, name, key)
	if err != nil {
		f.fail(field, fmt.Errorf("read key %s of Secret %s: %w", key, name, err))
	}

	return content
}

func (f *fields) filesystem() Location {
	folder := f.config[configPath]
	if !path.IsAbs(folder) || path.Clean(folder) != folder {
		f.fail("spec.config.path", fmt.Errorf("%q is not an absolute, clean path", folder))
	}

	return Location{Settings: settings.Settings{Kind: settings.Filesystem, Path: folder}}
}

func (f *fields) bool(key string) bool {
	value := strings.TrimSpace(f.config[key])
	if value == "" {
		return false
	}

	b, err := strconv.ParseBool(value)
	if err != nil {
		f.fail("spec.config."+key, fmt.Errorf("%q is neither true nor false", value))
	}

	return b
}

// prefix takes slashes at the ends off, as Velero does.
func (f *fields) prefix(prefix string) string {
	prefix = strings.Trim(prefix, "/")
	if prefix != "" && path.Clean(prefix) != prefix || prefix == ".." || strings.HasPrefix(prefix, "../") {
		f.fail("spec.objectStorage.prefix", fmt.Errorf("%q is not a clean relative path", prefix))
	}

	return prefix
}

// caCert takes the first that is given, in Velero's order: the reference, the field, the config.
func (f *fields) caCert(ctx context.Context, o *velerov1.ObjectStorageLocation, secrets Secrets) []byte {
	if ref := o.CACertRef; ref != nil {
		content, err := secrets(ctx, ref.Name, ref.Key)
		if err != nil {
			f.fail("spec.objectStorage.caCertRef", fmt.Errorf("read key %s of Secret %s: %w", ref.Key, ref.Name, err))
		}

		return content
	}

	if len(o.CACert) > 0 {
		return o.CACert
	}

	inline := f.config[configCACert]

	switch {
	case inline == "":
		return nil
	case strings.Contains(inline, "-----BEGIN"):
		return []byte(inline)
	}

	content, err := base64.StdEncoding.DecodeString(strings.TrimSpace(inline))
	if err != nil {
		f.fail("spec.config.caCert", errors.New("it is neither PEM nor PEM in base64"))
	}

	return content
}
