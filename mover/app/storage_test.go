package app

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/config"
	"github.com/estiba-dev/estiba/mover/engine"
)

// locationsOf makes locations of objects, with caches in a folder of the test.
func locationsOf(t *testing.T, change func(*config.Config), objects ...client.Object) (*locations, string) {
	t.Helper()

	scheme, err := newScheme()
	require.NoError(t, err)

	c := config.Default(config.RoleNode, func(string) string { return "" })
	c.CacheDir = t.TempDir()

	if change != nil {
		change(&c)
	}

	return newLocations(fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(), c, nil), c.CacheDir
}

func folderLocation(path string) *velerov1.BackupStorageLocation {
	return &velerov1.BackupStorageLocation{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "default"},
		Spec:       velerov1.BackupStorageLocationSpec{Provider: "filesystem", Config: map[string]string{"path": path}},
	}
}

func TestAStorageThatIsOpenKeepsItsRepositorysCache(t *testing.T) {
	t.Parallel()

	l, dir := locationsOf(t, func(c *config.Config) { c.MetadataCache, c.ContentCache, c.CacheTotal = 32*cacheKiB, 0, 65*cacheKiB },
		folderLocation(t.TempDir()))
	cacheOf(t, dir, "a", 2)

	open := func(letter string) io.Closer {
		st, err := l.open(t.Context(), v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "app", ID: repositoryID(letter)}, access{attempt: 1})
		require.NoError(t, err)

		c, ok := st.(io.Closer)
		require.True(t, ok, "the runner closes what it can close")

		return c
	}

	a, b := open("a"), open("b")

	assert.DirExists(t, filepath.Join(dir, repositoryID("a")), "it is beyond the total, but in use")
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())

	c := open("c")
	defer c.Close()

	_, err := os.Stat(filepath.Join(dir, repositoryID("a")))
	assert.ErrorIs(t, err, os.ErrNotExist, "nobody uses it any more, and there is no room")
}

func s3Location(url string) *velerov1.BackupStorageLocation {
	return &velerov1.BackupStorageLocation{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "default"},
		Spec: velerov1.BackupStorageLocationSpec{
			Provider: "aws", Config: map[string]string{"s3Url": url, "s3ForcePathStyle": "true", "region": "r", "profile": "p"},
			Credential:  &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s3"}, Key: "file"},
			StorageType: velerov1.StorageType{ObjectStorage: &velerov1.ObjectStorageLocation{Bucket: "bkt"}},
		},
	}
}

func s3Secret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "s3"},
		Data:       map[string][]byte{"file": []byte("[p]\naws_access_key_id=a\naws_secret_access_key=s\n")},
	}
}

func TestAFailureOfTheStoreNamesObjectFieldAndRemedy(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		answer  string
		status  int
		objects []client.Object
		code    engine.Code
		want    []string
	}{
		"refused credentials": {
			"AccessDenied", http.StatusForbidden,
			[]client.Object{s3Secret()},
			engine.CodeCredentialsInvalid,
			[]string{"bucket bkt at http://127.0.0.1:", "key file of Secret velero/s3, profile [p]", "AccessDenied", "put valid credentials", "spec.credential"},
		},
		"no credentials": {
			"", http.StatusOK, nil, engine.CodeCredentialsInvalid,
			[]string{"Secret velero/s3 does not exist", "key file of Secret velero/s3", "put valid credentials"},
		},
		"a store in trouble": {
			"InternalError", http.StatusInternalServerError,
			[]client.Object{s3Secret()},
			engine.CodeStoreUnavailable,
			[]string{"bucket bkt at http://127.0.0.1:", "InternalError", "kubectl describe backupstoragelocation default"},
		},
		"a bucket that is not there": {
			"NoSuchBucket", http.StatusNotFound,
			[]client.Object{s3Secret()},
			engine.CodeInvalidRequest,
			[]string{"bucket bkt at http://127.0.0.1:", "NoSuchBucket"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", c.answer)
			}))
			t.Cleanup(server.Close)

			location := s3Location(server.URL)
			l, _ := locationsOf(t, func(c *config.Config) { c.StoreRetry = -1 }, c.objects...)

			b, err := l.Open(t.Context(), location)
			require.NoError(t, err)

			_, _, err = b.List(t.Context(), "plugins/estiba/keys/")
			require.Equal(t, c.code, engine.CodeOf(err), "%v", err)

			for _, want := range c.want {
				assert.ErrorContains(t, err, want)
			}
		})
	}
}

func TestALocationWithoutASecretIsOpenedWithTheRoleOfThePod(t *testing.T) {
	t.Parallel()

	var authorized atomic.Value

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			fmt.Fprint(w, "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA</AccessKeyId>"+
				"<SecretAccessKey>s</SecretAccessKey><SessionToken>session</SessionToken></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>")

			return
		}

		authorized.Store(r.Header.Get("Authorization") + r.Header.Get("X-Amz-Security-Token"))
		fmt.Fprint(w, "<ListBucketResult/>")
	}))
	t.Cleanup(server.Close)

	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("jwt"), 0o600))

	location := s3Location(server.URL)
	location.Spec.Credential = nil

	l, _ := locationsOf(t, func(c *config.Config) {
		c.StoreRetry = -1
		c.Env = func(name string) string {
			return map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:r", "AWS_ENDPOINT_URL_STS": server.URL}[name]
		}
	})

	b, err := l.Open(t.Context(), location)
	require.NoError(t, err)
	_, _, err = b.List(t.Context(), "plugins/estiba/keys/")
	require.NoError(t, err)
	assert.Contains(t, authorized.Load(), "Credential=ASIA/")
	assert.Contains(t, authorized.Load(), "session")

	require.NoError(t, os.Remove(token))

	b, err = l.Open(t.Context(), location)
	require.NoError(t, err)
	_, _, err = b.List(t.Context(), "plugins/estiba/keys/")
	require.ErrorContains(t, err, "Secret velero/cloud-credentials does not exist; and read the token of this pod's role")
	assert.Equal(t, engine.CodeCredentialsInvalid, engine.CodeOf(err))
}

func TestFurtherAttemptsDoNotWaitForAStoreThatIsAway(t *testing.T) {
	t.Parallel()

	var (
		status atomic.Int64
		asked  atomic.Int64
	)

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(int(status.Load()))
		fmt.Fprint(w, "<Error><Code>NoSuchKey</Code></Error>")
	}))
	t.Cleanup(server.Close)

	l, _ := locationsOf(t, func(c *config.Config) { c.StoreRetry = time.Hour }, s3Location(server.URL), s3Secret())
	ref := v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "app", ID: repositoryID("a")}

	status.Store(http.StatusServiceUnavailable)

	st, err := l.open(t.Context(), ref, access{attempt: 1})
	require.NoError(t, err, "the first attempt finds out by its own requests")
	assert.Zero(t, asked.Load())
	require.NoError(t, st.(io.Closer).Close())

	_, err = l.open(t.Context(), ref, access{attempt: 2})
	require.Equal(t, engine.CodeStoreUnavailable, engine.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "bucket bkt at "+server.URL)
	assert.Equal(t, int64(1), asked.Load(), "it asks once")

	status.Store(http.StatusNotFound)

	st, err = l.open(t.Context(), ref, access{attempt: 2})
	require.NoError(t, err, "a store that answers is there")
	require.NoError(t, st.(io.Closer).Close())
}
