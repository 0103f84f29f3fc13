package credentials_test

import (
	"context"
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/credentials"
	"github.com/estiba-dev/estiba/mover/credentials/role"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

const pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

// location is one that is right, changed by change.
func location(change func(*velerov1.BackupStorageLocation)) *velerov1.BackupStorageLocation {
	bsl := &velerov1.BackupStorageLocation{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "default"},
		Spec: velerov1.BackupStorageLocationSpec{
			Provider: "aws",
			Config:   map[string]string{"region": "eu-1", "s3Url": "http://minio.minio:9000", "s3ForcePathStyle": "true"},
			StorageType: velerov1.StorageType{
				ObjectStorage: &velerov1.ObjectStorageLocation{Bucket: "backups", Prefix: "/cluster/one/"},
			},
		},
	}
	if change != nil {
		change(bsl)
	}

	return bsl
}

// customerKey is 32 bytes.
const customerKey = "0123456789abcdef0123456789abcdef"

// from makes surroundings of Secrets by name/key. The file /key holds a customer key and more.
func from(content map[string]string) credentials.Surroundings {
	return credentials.Surroundings{
		Secrets: func(_ context.Context, name, key string) ([]byte, error) {
			if c, ok := content[name+"/"+key]; ok {
				return []byte(c), nil
			}

			return nil, fmt.Errorf("Secret velero/%s %w", name, credentials.ErrNoSecret)
		},
		Fallback: credentials.DefaultSecret(),
		Role: role.Surroundings{
			Env: func(name string) string { return content["$"+name] },
			File: func(name string) ([]byte, error) {
				if name == "/key" {
					return []byte(customerKey + "\n"), nil
				}

				return nil, fs.ErrNotExist
			},
		},
	}
}

func TestALocationIsRead(t *testing.T) {
	t.Parallel()

	base := settings.Settings{
		Kind: settings.S3, Prefix: "cluster/one", Bucket: "backups", Region: "eu-1",
		Endpoint: "minio.minio:9000", PathStyle: true, DoNotUseTLS: true, Checksum: settings.ChecksumCRC32C,
	}

	for name, c := range map[string]struct {
		change  func(*velerov1.BackupStorageLocation)
		want    func(*settings.Settings)
		secret  string
		profile string
	}{
		"as it is":                        {},
		"with the provider's full name":   {change: func(b *velerov1.BackupStorageLocation) { b.Spec.Provider = "velero.io/aws" }},
		"with TLS and a slash at the end": {change: config("s3Url", "https://s3.example/"), want: func(s *settings.Settings) { s.Endpoint, s.DoNotUseTLS = "s3.example", false }},
		"without an endpoint":             {change: config("s3Url", ""), want: func(s *settings.Settings) { s.Endpoint, s.DoNotUseTLS = "", false }},
		"with unverified TLS":             {change: config("insecureSkipTLSVerify", "true"), want: func(s *settings.Settings) { s.InsecureSkipTLSVerify = true }},
		"of a server without checksums":   {change: config("checksumAlgorithm", ""), want: func(s *settings.Settings) { s.Checksum = settings.ChecksumMD5 }},
		"with a profile":                  {change: config("profile", "other"), profile: "other"},
		"for reading only": {
			change: func(b *velerov1.BackupStorageLocation) {
				b.Spec.AccessMode = velerov1.BackupStorageLocationAccessModeReadOnly
			},
			want: func(s *settings.Settings) { s.ReadOnly = true },
		},
		"with a Secret of its own": {
			change: func(b *velerov1.BackupStorageLocation) {
				b.Spec.Credential = &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "mine"}, Key: "aws"}
			},
			secret: "mine",
		},
		"with a certificate in the field": {
			change: func(b *velerov1.BackupStorageLocation) { b.Spec.ObjectStorage.CACert = []byte(pem) },
			want:   func(s *settings.Settings) { s.CACert = []byte(pem) },
		},
		"with a certificate in the config": {change: config("caCert", pem), want: func(s *settings.Settings) { s.CACert = []byte(pem) }},
		"with a certificate in a Secret, which goes first": {
			change: func(b *velerov1.BackupStorageLocation) {
				b.Spec.ObjectStorage.CACert = []byte("other")
				b.Spec.ObjectStorage.CACertRef = &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "ca"}, Key: "ca.crt"}
			},
			want: func(s *settings.Settings) { s.CACert = []byte(pem) },
		},
		"encrypted with the server's keys": {
			change: config("serverSideEncryption", "AES256"),
			want:   func(s *settings.Settings) { s.Encryption.Algorithm = "AES256" },
		},
		"encrypted with a key of the key management, as Velero's plugin takes it": {
			change: config("serverSideEncryption", "AES256", "kmsKeyId", "k1"),
			want:   func(s *settings.Settings) { s.Encryption = settings.Encryption{Algorithm: "aws:kms", KMSKeyID: "k1"} },
		},
		"encrypted with a key from a Secret": {
			change: config("customerKeyEncryptionSecret", "sse/key", "s3Url", "https://minio.minio:9000"),
			want: func(s *settings.Settings) {
				s.DoNotUseTLS, s.Encryption.CustomerKey = false, settings.CustomerKey(customerKey)
			},
		},
		"encrypted with a key from a file, of which 32 bytes count": {
			change: config("customerKeyEncryptionFile", "/key", "s3Url", "https://minio.minio:9000"),
			want: func(s *settings.Settings) {
				s.DoNotUseTLS, s.Encryption.CustomerKey = false, settings.CustomerKey(customerKey)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got, err := credentials.FromLocation(context.Background(), location(c.change), from(map[string]string{"ca/ca.crt": pem, "sse/key": customerKey}))
			require.NoError(t, err)

			want := base
			if c.want != nil {
				c.want(&want)
			}

			require.Equal(t, want, got.Settings)
			require.Equal(t, c.profile, got.Profile)

			if c.secret == "" {
				c.secret = "cloud-credentials"
			}

			require.Equal(t, c.secret, got.Secret.Name)
		})
	}
}

// config sets keys of a location's config, each followed by its value.
func config(pairs ...string) func(*velerov1.BackupStorageLocation) {
	return func(b *velerov1.BackupStorageLocation) {
		for i := 0; i < len(pairs); i += 2 {
			b.Spec.Config[pairs[i]] = pairs[i+1]
		}
	}
}

func TestAFileSystemLocationIsRead(t *testing.T) {
	t.Parallel()

	got, err := credentials.FromLocation(context.Background(), location(func(b *velerov1.BackupStorageLocation) {
		b.Spec.Provider = "filesystem"
		b.Spec.Config = map[string]string{"path": "/mnt/backups"}
	}), credentials.Surroundings{})
	require.NoError(t, err)
	require.Equal(t, settings.Settings{Kind: settings.Filesystem, Path: "/mnt/backups", Prefix: "cluster/one"}, got.Settings)

	c, err := got.Source(credentials.Surroundings{}).Credentials(context.Background())
	require.NoError(t, err)
	require.Zero(t, c)
}

func TestALocationIsRefusedByName(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		change func(*velerov1.BackupStorageLocation)
		field  string
	}{
		"with an unknown provider":      {func(b *velerov1.BackupStorageLocation) { b.Spec.Provider = "azure" }, "spec.provider"},
		"without a bucket":              {func(b *velerov1.BackupStorageLocation) { b.Spec.ObjectStorage.Bucket = "" }, "spec.objectStorage.bucket"},
		"without an object storage":     {func(b *velerov1.BackupStorageLocation) { b.Spec.ObjectStorage = nil }, "spec.objectStorage.bucket"},
		"with a prefix that leads out":  {func(b *velerov1.BackupStorageLocation) { b.Spec.ObjectStorage.Prefix = "a/../../b" }, "spec.objectStorage.prefix"},
		"with a URL that has a path":    {config("s3Url", "https://s3.example/bucket"), "spec.config.s3Url"},
		"with a URL without a scheme":   {config("s3Url", "s3.example:9000"), "spec.config.s3Url"},
		"with a URL of another scheme":  {config("s3Url", "ftp://s3.example"), "spec.config.s3Url"},
		"with a URL that has a user":    {config("s3Url", "https://me:secret@s3.example"), "spec.config.s3Url"},
		"with a word for a boolean":     {config("s3ForcePathStyle", "maybe"), "spec.config.s3ForcePathStyle"},
		"with a certificate that isn't": {config("caCert", "*"), "spec.config.caCert"},
		"with an absent CA Secret": {func(b *velerov1.BackupStorageLocation) {
			b.Spec.ObjectStorage.CACertRef = &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Key: "k"}
		}, "spec.objectStorage.caCertRef"},
		"with an unknown encryption":            {config("serverSideEncryption", "rot13"), "spec.config.serverSideEncryption"},
		"with two keys to encrypt with":         {config("kmsKeyId", "k", "customerKeyEncryptionFile", "/key"), "spec.config"},
		"with a customer key that isn't there":  {config("customerKeyEncryptionFile", "/none"), "spec.config.customerKeyEncryptionFile"},
		"with a customer key that is too short": {config("customerKeyEncryptionSecret", "sse/short"), "spec"},
		"with a customer key over plain HTTP":   {config("customerKeyEncryptionFile", "/key"), "spec"},
		"with half the name of a customer key":  {config("customerKeyEncryptionSecret", "sse"), "spec.config.customerKeyEncryptionSecret"},
		"with a Secret without a key": {func(b *velerov1.BackupStorageLocation) {
			b.Spec.Credential = &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "x"}}
		}, "spec.credential"},
		"of a file system without a path": {func(b *velerov1.BackupStorageLocation) { b.Spec.Provider = "filesystem" }, "spec.config.path"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, err := credentials.FromLocation(context.Background(), location(c.change), from(map[string]string{"sse/short": "short"}))
			require.ErrorContains(t, err, "BackupStorageLocation velero/default: "+c.field)
			require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err))
			require.NotContains(t, err.Error(), "secret@")
		})
	}
}

func TestACredentialsFileIsParsed(t *testing.T) {
	t.Parallel()

	const file = "# comment\n[default]\naws_access_key_id=AK\naws_secret_access_key = a/b+c==#;x\n\n[other]\nAWS_ACCESS_KEY_ID = AK2\naws_secret_access_key = S2\naws_session_token = T2\n[empty]\naws_access_key_id = AK3\n"

	for name, c := range map[string]struct {
		content, profile string
		want             settings.Credentials
		role             role.WebIdentity
		message          string
	}{
		"a role and its token": {
			content: "[default]\nsts_regional_endpoints = regional\nrole_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = /t\n",
			role:    role.WebIdentity{Role: "arn:aws:iam::1:role/r", TokenFile: "/t"},
		},
		"a role of another kind":      {content: "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = other\n", message: "no aws_access_key_id (nor role_arn with web_identity_token_file"},
		"the default profile":         {content: file, want: settings.Credentials{AccessKeyID: "AK", SecretAccessKey: "a/b+c==#;x"}},
		"another one with a token":    {content: file, profile: "other", want: settings.Credentials{AccessKeyID: "AK2", SecretAccessKey: "S2", SessionToken: "T2"}},
		"one that is not there":       {content: file, profile: "none", message: "no profile [none]"},
		"one without a secret":        {content: file, profile: "empty", message: "no aws_secret_access_key"},
		"an empty file":               {content: "", message: "no profile [default]"},
		"something else than an ini":  {content: "{\"a\": 1}", message: "no profile [default]"},
		"a broken section of an ini":  {content: "[default\nx", message: "not an AWS credentials file"},
		"Windows' ends of the lines":  {content: "[default]\r\naws_access_key_id=AK\r\naws_secret_access_key=S\r\n", want: settings.Credentials{AccessKeyID: "AK", SecretAccessKey: "S"}},
		"a byte order mark before it": {content: "\ufeff[default]\naws_access_key_id=AK\naws_secret_access_key=S\n", want: settings.Credentials{AccessKeyID: "AK", SecretAccessKey: "S"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got, err := credentials.ParseAWS([]byte(c.content), c.profile)
			if c.message != "" {
				require.ErrorContains(t, err, c.message)
				require.Equal(t, engine.CodeCredentialsInvalid, engine.CodeOf(err))

				return
			}

			require.NoError(t, err)
			require.Equal(t, credentials.Profile{Credentials: c.want, Role: c.role}, got)
		})
	}
}

func TestASecretIsReadAgainEachTime(t *testing.T) {
	t.Parallel()

	content := map[string]string{"$AWS_EC2_METADATA_DISABLED": "true"}

	l, err := credentials.FromLocation(context.Background(), location(nil), from(content))
	require.NoError(t, err)

	source := l.Source(from(content))

	_, err = source.Credentials(context.Background())
	require.ErrorContains(t, err, "Secret velero/cloud-credentials does not exist; and this pod was given no role")
	require.Equal(t, engine.CodeCredentialsInvalid, engine.CodeOf(err))

	content["$AWS_ACCESS_KEY_ID"], content["$AWS_SECRET_ACCESS_KEY"] = "E", "S"
	byRole, err := source.Credentials(context.Background())
	require.NoError(t, err)
	require.Equal(t, "E", byRole.AccessKeyID, "a location that names no Secret is opened with the role of the process")

	own, err := credentials.FromLocation(context.Background(), location(func(b *velerov1.BackupStorageLocation) {
		b.Spec.Credential = &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "mine"}, Key: "aws"}
	}), from(content))
	require.NoError(t, err)
	_, err = own.Source(from(content)).Credentials(context.Background())
	require.ErrorContains(t, err, "key aws of Secret mine", "a Secret that is named is not done without")
	require.Equal(t, engine.CodeCredentialsInvalid, engine.CodeOf(err))

	content["cloud-credentials/cloud"] = "[default]\naws_access_key_id=A\naws_secret_access_key=S\n"
	got, err := source.Credentials(context.Background())
	require.NoError(t, err)
	require.Equal(t, "A", got.AccessKeyID)
}
