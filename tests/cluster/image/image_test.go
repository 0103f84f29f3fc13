package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type member struct {
	header  tar.Header
	content []byte
}

func readTar(t *testing.T, r io.Reader) map[string]member {
	t.Helper()
	members := map[string]member{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return members
		}
		require.NoError(t, err)
		content, err := io.ReadAll(tr)
		require.NoError(t, err)
		members[h.Name] = member{*h, content}
	}
}

func testImage(t *testing.T) Image {
	t.Helper()
	source := filepath.Join(t.TempDir(), "mover")
	require.NoError(t, os.WriteFile(source, []byte("binary"), 0o600))
	return Image{
		Name: "estiba.test/x:1", User: "65532:65532", Entrypoint: []string{"/bin/mover"}, Env: []string{"A=b"}, Architecture: "arm64",
		Files: []File{
			{Path: "/bin/mover", Source: source, Mode: 0o755},
			{Path: "/bin/sh", Link: "mover"},
			{Path: "/etc/passwd", Content: "root:x:0:0::/:\n", Mode: 0o644},
			{Path: "/home/u", Mode: fs.ModeDir | 0o700, UID: 1002, GID: 1000},
			{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		},
	}
}

func TestWriteMakesAnArchiveThatEnginesRead(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, Write(&out, testImage(t)))
	members := readTar(t, &out)

	var index []manifest
	require.NoError(t, json.Unmarshal(members["manifest.json"].content, &index))
	require.Len(t, index, 1)
	assert.Equal(t, []string{"estiba.test/x:1"}, index[0].RepoTags)

	var cfg config
	require.NoError(t, json.Unmarshal(members[index[0].Config].content, &cfg))
	assert.Equal(t, "arm64", cfg.Architecture)
	assert.Equal(t, "linux", cfg.OS)
	assert.Equal(t, runConfig{User: "65532:65532", Env: []string{"A=b"}, Entrypoint: []string{"/bin/mover"}}, cfg.Config)

	layer := members[index[0].Layers[0]].content
	sum := sha256.Sum256(layer)
	assert.Equal(t, []string{"sha256:" + hex.EncodeToString(sum[:])}, cfg.RootFS.DiffIDs, "engines compare the layer with its digest")
}

func TestWriteKeepsWhatAFileIs(t *testing.T) {
	t.Parallel()
	img := testImage(t)
	var layer bytes.Buffer
	require.NoError(t, writeLayer(&layer, withParents(img.Files)))
	files := readTar(t, &layer)

	assert.Equal(t, "binary", string(files["bin/mover"].content))
	assert.EqualValues(t, 0o755, files["bin/mover"].header.Mode)
	assert.Equal(t, "mover", files["bin/sh"].header.Linkname)
	assert.EqualValues(t, tar.TypeDir, files["bin/"].header.Typeflag, "a parent that nobody listed is added")
	assert.EqualValues(t, 0o755, files["home/"].header.Mode)
	assert.EqualValues(t, 0o700, files["home/u/"].header.Mode)
	assert.Equal(t, 1002, files["home/u/"].header.Uid)
	assert.EqualValues(t, 0o1777, files["tmp/"].header.Mode)
	assert.True(t, files["etc/passwd"].header.ModTime.Equal(epoch()))
}

func TestTheSameFilesMakeTheSameImage(t *testing.T) {
	t.Parallel()
	img := testImage(t)
	digest, err := Digest(img)
	require.NoError(t, err)
	var first, second bytes.Buffer
	require.NoError(t, Write(&first, img))
	require.NoError(t, Write(&second, img))
	assert.Equal(t, first.Bytes(), second.Bytes())

	img.User = "0"
	other, err := Digest(img)
	require.NoError(t, err)
	assert.NotEqual(t, digest, other, "settings are part of the image")
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*Image)
		want   string
	}{
		"an image without a name":   {func(i *Image) { i.Name = "" }, ErrNoName.Error()},
		"a source that is missing":  {func(i *Image) { i.Files[0].Source = "/does/not/exist" }, "write /bin/mover into the layer"},
		"a source that is a folder": {func(i *Image) { i.Files[0].Source = "/" }, "not a regular file"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := testImage(t)
			tc.change(&img)
			dir := t.TempDir()
			err := WriteFile(filepath.Join(dir, "x.tar"), img)
			require.ErrorContains(t, err, tc.want)
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			assert.Empty(t, left, "nothing half-written stays")
		})
	}
}
