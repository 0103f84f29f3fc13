//go:build e2e && slow

package e2e

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/tests/testkit/stock"
)

// bucket is what a storage location points to, as any client of S3 sees it.
type bucket struct {
	*cell
	client       *minio.Client
	name, prefix string
}

// bucket opens the bucket of a storage location.
func (c *cell) bucket(location string) bucket {
	c.t.Helper()

	at, err := stock.Storage(c.ctx, c.Lab, location)
	require.NoError(c.t, err)

	client, err := minio.New(at.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(at.AccessKeyID, at.SecretAccessKey, ""), Secure: !at.DoNotUseTLS, Region: at.Region,
	})
	require.NoError(c.t, err)

	return bucket{cell: c, client: client, name: at.BucketName, prefix: at.Prefix}
}

// objects identifies every object below the prefix: whoever writes the same once more is found out.
func (b bucket) objects() map[string]string {
	b.t.Helper()

	found := map[string]string{}

	for o := range b.client.ListObjects(b.ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix, Recursive: true}) {
		require.NoError(b.t, o.Err)

		found[strings.TrimPrefix(o.Key, b.prefix)] = o.ETag + " of " + o.LastModified.Format(time.RFC3339Nano)
	}

	require.NotEmpty(b.t, found)

	return found
}

// written returns the objects that were written or removed since, but for those in Velero's own folder of restores.
func (b bucket) written(since map[string]string) []string {
	b.t.Helper()

	var changed []string

	now := b.objects()
	for path, what := range now {
		if since[path] != what && !strings.HasPrefix(path, "restores/") {
			changed = append(changed, path)
		}
	}

	for path := range since {
		if now[path] == "" {
			changed = append(changed, "removed: "+path)
		}
	}

	return changed
}

// copyTo copies all objects into a new bucket, below another prefix, and returns it. It goes when the test ends.
func (b bucket) copyTo(name, prefix string) bucket {
	b.t.Helper()
	require.NoError(b.t, b.client.MakeBucket(b.ctx, name, minio.MakeBucketOptions{}))

	for path := range b.objects() {
		_, err := b.client.CopyObject(b.ctx, minio.CopyDestOptions{Bucket: name, Object: prefix + path}, minio.CopySrcOptions{Bucket: b.name, Object: b.prefix + path})
		require.NoError(b.t, err)
	}

	b.name, b.prefix = name, prefix
	b.t.Cleanup(b.remove)

	return b
}

// remove removes a bucket of a test's own. A Velero that still has a location there may write once more meanwhile.
func (b bucket) remove() {
	b.eventually("bucket "+b.name+" to be gone", func(ctx context.Context) (bool, error) {
		for o := range b.client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Recursive: true}) {
			if err := errors.Join(o.Err, b.client.RemoveObject(ctx, b.name, o.Key, minio.RemoveObjectOptions{})); err != nil {
				return false, err
			}
		}

		return b.client.RemoveBucket(ctx, b.name) == nil, nil
	})
}
