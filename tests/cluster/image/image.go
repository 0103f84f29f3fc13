// Package image writes container images as docker-archive tarballs, the format that `docker load` and
// `ctr images import` read, from files of this machine: no container engine, no registry, no base image.
//
// An image has one layer and is reproducible: the same files give the same bytes. The package must
// not know what is inside the images; who needs one lists its files.
package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// ErrNoName is returned for an image that nothing could refer to.
var ErrNoName = errors.New("image without a name")

// File is one entry of an image. Exactly one of Source, Content, Link and a directory Mode says what it is.
type File struct {
	// Path is where it lies in the image, absolute.
	Path string
	// Source is a regular file of this machine.
	Source string
	// Content is the text of a small file.
	Content string
	// Link makes it a symbolic link to this target.
	Link string
	// Mode holds the permissions; with fs.ModeDir it is a directory, fs.ModeSticky is kept.
	Mode fs.FileMode
	// UID and GID own it.
	UID, GID int
}

// Image describes one image.
type Image struct {
	// Name is the reference it is imported as, such as "estiba.test/busybox:1".
	Name string
	// Files need not name the parent directories: they are added as root's with mode 0755.
	Files []File
	// Entrypoint, Cmd, Env, User and WorkDir mean what they mean in a Dockerfile.
	Entrypoint, Cmd, Env []string
	User, WorkDir        string
	// Architecture is a GOARCH; empty means that of this program.
	Architecture string
}

type config struct {
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Created      time.Time `json:"created"`
	Config       runConfig `json:"config"`
	RootFS       rootFS    `json:"rootfs"`
}

type runConfig struct {
	User       string   `json:"User,omitempty"`
	Env        []string `json:"Env,omitempty"`
	Entrypoint []string `json:"Entrypoint,omitempty"`
	Cmd        []string `json:"Cmd,omitempty"`
	WorkingDir string   `json:"WorkingDir,omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// WriteFile writes the tarball to path, whole or not at all.
func WriteFile(path string, img Image) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the folder of image %s: %w", img.Name, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".image-*.part")
	if err != nil {
		return fmt.Errorf("write image %s: %w", img.Name, err)
	}
	err = errors.Join(Write(f, img), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write image %s to %s: %w", img.Name, path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// Write writes the tarball. The sources are read twice, first for the layer's digest, and must not change meanwhile.
func Write(w io.Writer, img Image) error {
	if img.Name == "" {
		return ErrNoName
	}
	entries := withParents(img.Files)
	size, digest, err := layerDigest(entries)
	if err != nil {
		return err
	}
	cfg, err := json.Marshal(configOf(img, digest))
	if err != nil {
		return fmt.Errorf("encode the config of image %s: %w", img.Name, err)
	}
	sum := sha256.Sum256(cfg)
	m := manifest{Config: hex.EncodeToString(sum[:]) + ".json", RepoTags: []string{img.Name}, Layers: []string{digest + "/layer.tar"}}
	index, err := json.Marshal([]manifest{m})
	if err != nil {
		return fmt.Errorf("encode the manifest of image %s: %w", img.Name, err)
	}
	tw := tar.NewWriter(w)
	if err := writeMember(tw, m.Config, cfg); err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m.Layers[0], Size: size, Mode: 0o644, ModTime: epoch()}); err != nil {
		return fmt.Errorf("write the layer of image %s: %w", img.Name, err)
	}
	again := sha256.New()
	if err := writeLayer(io.MultiWriter(tw, again), entries); err != nil {
		return err
	}
	if hex.EncodeToString(again.Sum(nil)) != digest {
		return fmt.Errorf("a file of image %s changed while it was written", img.Name)
	}
	if err := writeMember(tw, "manifest.json", index); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("end the tarball of image %s: %w", img.Name, err)
	}
	return nil
}

func configOf(img Image, digest string) config {
	arch := img.Architecture
	if arch == "" {
		arch = runtime.GOARCH
	}
	return config{
		Architecture: arch, OS: "linux", Created: epoch(),
		Config: runConfig{User: img.User, Env: img.Env, Entrypoint: img.Entrypoint, Cmd: img.Cmd, WorkingDir: img.WorkDir},
		RootFS: rootFS{Type: "layers", DiffIDs: []string{"sha256:" + digest}},
	}
}

// epoch is every entry's time: an image must not depend on when it was made.
func epoch() time.Time { return time.Unix(0, 0).UTC() }

func writeMember(tw *tar.Writer, name string, content []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644, ModTime: epoch()}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := tw.Write(content); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// withParents adds the missing parent directories and sorts, so that parents come first.
func withParents(files []File) []File {
	byPath := map[string]File{}
	for _, f := range files {
		f.Path = path.Clean("/" + f.Path)
		byPath[f.Path] = f
	}
	for _, f := range files {
		for dir := path.Dir(path.Clean("/" + f.Path)); dir != "/"; dir = path.Dir(dir) {
			if _, ok := byPath[dir]; !ok {
				byPath[dir] = File{Path: dir, Mode: fs.ModeDir | 0o755}
			}
		}
	}
	entries := make([]File, 0, len(byPath))
	for _, f := range byPath {
		entries = append(entries, f)
	}
	slices.SortFunc(entries, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return entries
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func layerDigest(entries []File) (size int64, digest string, err error) {
	sum, count := sha256.New(), &counter{}
	if err := writeLayer(io.MultiWriter(sum, count), entries); err != nil {
		return 0, "", err
	}
	return count.n, hex.EncodeToString(sum.Sum(nil)), nil
}

func writeLayer(w io.Writer, entries []File) error {
	tw := tar.NewWriter(w)
	for _, f := range entries {
		if err := writeEntry(tw, f); err != nil {
			return fmt.Errorf("write %s into the layer: %w", f.Path, err)
		}
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, f File) error {
	h := &tar.Header{
		Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode.Perm()), Uid: f.UID, Gid: f.GID,
		ModTime: epoch(), Format: tar.FormatPAX,
	}
	if f.Mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case f.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		return tw.WriteHeader(h)
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		return tw.WriteHeader(h)
	case f.Source != "":
		return writeSource(tw, h, f.Source)
	}
	h.Typeflag, h.Size = tar.TypeReg, int64(len(f.Content))
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(tw, f.Content)
	return err
}

func writeSource(tw *tar.Writer, h *tar.Header, source string) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", source)
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.CopyN(tw, in, info.Size())
	return err
}

// Digest names an image by everything that goes into it: two images with the same digest have the same bytes.
func Digest(img Image) (string, error) {
	_, layer, err := layerDigest(withParents(img.Files))
	if err != nil {
		return "", fmt.Errorf("digest of image %s: %w", img.Name, err)
	}
	text, err := json.Marshal(configOf(img, layer))
	if err != nil {
		return "", fmt.Errorf("digest of image %s: %w", img.Name, err)
	}
	sum := sha256.Sum256(append(text, img.Name...))
	return hex.EncodeToString(sum[:])[:16], nil
}
