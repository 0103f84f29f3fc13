// Package stock opens Estiba's repositories the way anyone can who has the
// bucket, the master key and the stock kopia: with kopia's own S3 storage and a
// password derived as docs/adr/0004 says, and with nothing of Estiba's code. What
// it sees is what a test may believe.
package stock

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob/s3"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/restore"
	"github.com/kopia/kopia/snapshot/snapshotfs"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"gopkg.in/ini.v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// Repository is one repository, opened for reading.
type Repository struct {
	repo.Repository
}

// Open opens a repository by its location and its path below the location's prefix.
func Open(ctx context.Context, l *lab.Lab, location, path string) (*Repository, error) {
	password, err := Password(ctx, l, filepath.Base(strings.TrimSuffix(path, "/")))
	if err != nil {
		return nil, err
	}

	return OpenWith(ctx, l, location, path, password)
}

// OpenWith opens a repository with a password that the caller has from elsewhere.
func OpenWith(ctx context.Context, l *lab.Lab, location, path, password string) (*Repository, error) {
	options, err := Storage(ctx, l, location)
	if err != nil {
		return nil, err
	}

	options.Prefix += path

	st, err := s3.New(ctx, options, false)
	if err != nil {
		return nil, fmt.Errorf("open s3 storage: %w", err)
	}

	dir, err := os.MkdirTemp("", "stock-kopia-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // what is open stays open, and nothing is cached

	config := filepath.Join(dir, "repository.config")
	if err := repo.Connect(ctx, config, st, password, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to repository %s: %w", path, err), st.Close(ctx))
	}

	if err := st.Close(ctx); err != nil {
		return nil, err
	}

	r, err := repo.Open(ctx, config, password, nil)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", path, err)
	}

	return &Repository{r}, nil
}

// Snapshots lists all snapshots.
func (r *Repository) Snapshots(ctx context.Context) ([]*snapshot.Manifest, error) {
	ids, err := snapshot.ListSnapshotManifests(ctx, r, nil, nil)
	if err != nil {
		return nil, err
	}

	return snapshot.LoadSnapshots(ctx, r, ids)
}

// Restore writes a snapshot's files into dir with kopia's own code.
func (r *Repository) Restore(ctx context.Context, m *snapshot.Manifest, dir string) error {
	root, err := snapshotfs.SnapshotRoot(r, m)
	if err != nil {
		return err
	}

	out := &restore.FilesystemOutput{TargetPath: dir, OverwriteDirectories: true, OverwriteFiles: true, OverwriteSymlinks: true}
	if err := out.Init(ctx); err != nil {
		return err
	}

	_, err = restore.Entry(ctx, r, out, root, restore.Options{Parallel: 4, RestoreDirEntryAtDepth: 1 << 30})

	return err
}

// Storage reads a location of the aws provider the way Velero's documentation describes it.
func Storage(ctx context.Context, l *lab.Lab, location string) (*s3.Options, error) {
	var bsl velerov1.BackupStorageLocation
	if err := l.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: location}, &bsl); err != nil {
		return nil, err
	}

	name, key := "cloud-credentials", "cloud"
	if bsl.Spec.Credential != nil {
		name, key = bsl.Spec.Credential.Name, bsl.Spec.Credential.Key
	}

	var secret corev1.Secret
	if err := l.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: name}, &secret); err != nil {
		return nil, err
	}

	file, err := ini.Load(secret.Data[key])
	if err != nil {
		return nil, err
	}

	endpoint, err := url.Parse(bsl.Spec.Config["s3Url"])
	if err != nil {
		return nil, err
	}

	prefix := bsl.Spec.ObjectStorage.Prefix
	if prefix != "" {
		prefix = strings.TrimSuffix(prefix, "/") + "/"
	}

	return &s3.Options{
		BucketName:      bsl.Spec.ObjectStorage.Bucket,
		Prefix:          prefix,
		Endpoint:        endpoint.Host,
		DoNotUseTLS:     endpoint.Scheme == "http",
		Region:          bsl.Spec.Config["region"],
		AccessKeyID:     file.Section("default").Key("aws_access_key_id").String(),
		SecretAccessKey: file.Section("default").Key("aws_secret_access_key").String(),
	}, nil
}

// Password derives the password of the repository with an ID.
func Password(ctx context.Context, l *lab.Lab, id string) (string, error) {
	var secret corev1.Secret
	if err := l.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: "estiba-master-key"}, &secret); err != nil {
		return "", err
	}

	master, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(secret.Data["key"])))
	if err != nil {
		return "", err
	}

	b, err := hkdf.Key(sha256.New, master, nil, "estiba.dev/repository-password/v1/"+id, 32)

	return hex.EncodeToString(b), err
}
