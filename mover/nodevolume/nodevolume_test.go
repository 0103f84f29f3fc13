package nodevolume

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const pod = "0b0e6fd5-2a3b-4a8f-9a53-3f7d1c0f2f10"

// tree is a pods folder as a kubelet makes it, with a secret beside it.
type tree struct {
	t       *testing.T
	root    string
	host    string
	outside string
}

func newTree(t *testing.T) *tree {
	t.Helper()

	base := t.TempDir()
	tr := &tree{t: t, root: filepath.Join(base, "pods"), host: filepath.Join(base, "host"), outside: filepath.Join(base, "outside")}
	require.NoError(t, os.MkdirAll(filepath.Join(tr.root, pod, "volumes"), 0o750))
	require.NoError(t, os.MkdirAll(tr.outside, 0o750))

	return tr
}

func (tr *tree) path(names ...string) string {
	return filepath.Join(append([]string{tr.root, pod, "volumes"}, names...)...)
}

// folder makes a folder with a file in it that tells where it is.
func (tr *tree) folder(names ...string) {
	tr.t.Helper()
	require.NoError(tr.t, os.MkdirAll(tr.path(names...), 0o750))
	require.NoError(tr.t, os.WriteFile(filepath.Join(tr.path(names...), "here"), []byte(strings.Join(names, "/")), 0o600))
}

// link puts a link to the folder outside in the place of a folder.
func (tr *tree) link(names ...string) {
	tr.t.Helper()
	require.NoError(tr.t, os.MkdirAll(filepath.Dir(tr.path(names...)), 0o750))
	require.NoError(tr.t, os.Symlink(tr.outside, tr.path(names...)))
}

// mount puts a file system of its own on a folder.
func (tr *tree) mount(names ...string) {
	tr.t.Helper()
	tr.tmpfs(tr.path(names...))
	tr.folder(names...)
}

func (tr *tree) tmpfs(dir string) {
	tr.t.Helper()

	if os.Geteuid() != 0 {
		tr.t.Skip("needs user 0, to mount")
	}

	require.NoError(tr.t, os.MkdirAll(dir, 0o750))

	if err := unix.Mount("estiba-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		tr.t.Skipf("needs the right to mount: %v", err)
	}

	tr.t.Cleanup(func() { assert.NoError(tr.t, unix.Unmount(dir, 0)) })
}

// node makes a folder of the node, with a file in it, below a mount.
func (tr *tree) node(mount, folder string) {
	tr.t.Helper()
	tr.tmpfs(filepath.Join(tr.host, mount))
	require.NoError(tr.t, os.MkdirAll(filepath.Join(tr.host, folder), 0o750))
	require.NoError(tr.t, os.WriteFile(filepath.Join(tr.host, folder, "here"), []byte("on the node"), 0o600))
}

// bind mounts a folder of the same file system, as the kubelet does for local volumes.
func (tr *tree) bind(names ...string) {
	tr.t.Helper()

	if os.Geteuid() != 0 {
		tr.t.Skip("needs user 0, to mount")
	}

	require.NoError(tr.t, os.MkdirAll(tr.path(names...), 0o750))

	if err := unix.Mount(tr.outside, tr.path(names...), "", unix.MS_BIND, ""); err != nil {
		tr.t.Skipf("needs the right to mount: %v", err)
	}

	tr.t.Cleanup(func() { assert.NoError(tr.t, unix.Unmount(tr.path(names...), 0)) })
	tr.folder(names...)
}

func emptyDir() Volume { return Volume{PodUID: pod, EmptyDir: "cache"} }

func claim() Volume { return Volume{PodUID: pod, PersistentVolume: "pv-1"} }

func restored(v Volume) Volume {
	v.MustBeMounted = true
	return v
}

func TestOpen(t *testing.T) {
	tests := map[string]struct {
		make    func(*tree)
		volume  Volume
		here    string
		mounted bool
		err     error
	}{
		"an emptyDir on disk": {
			make:   func(tr *tree) { tr.folder(emptyDirFolder, "cache"); tr.folder(emptyDirFolder, "other") },
			volume: emptyDir(), here: "kubernetes.io~empty-dir/cache",
		},
		"an emptyDir in memory is a mount": {
			make:   func(tr *tree) { tr.mount(emptyDirFolder, "cache") },
			volume: emptyDir(), here: "kubernetes.io~empty-dir/cache", mounted: true,
		},
		"a local volume is a bind mount of the same file system": {
			make:   func(tr *tree) { tr.bind("kubernetes.io~local-volume", "pv-1") },
			volume: restored(claim()), here: "kubernetes.io~local-volume/pv-1", mounted: true,
		},
		"a volume of any other plugin is found by its name": {
			make:   func(tr *tree) { tr.folder("kubernetes.io~nfs", "pv-1"); tr.folder("kubernetes.io~nfs", "pv-2") },
			volume: claim(), here: "kubernetes.io~nfs/pv-1",
		},
		"a CSI volume is one folder deeper": {
			make:   func(tr *tree) { tr.mount(csiFolder, "pv-1", "mount") },
			volume: restored(claim()), here: "kubernetes.io~csi/pv-1/mount", mounted: true,
		},
		"a CSI volume that is not staged yet": {
			make:   func(tr *tree) { tr.folder(csiFolder, "pv-1") },
			volume: claim(), err: ErrNoVolume,
		},
		"what is no PersistentVolume is not taken for one": {
			make: func(tr *tree) {
				for _, plugin := range []string{emptyDirFolder, "kubernetes.io~configmap", "kubernetes.io~projected"} {
					tr.folder(plugin, "pv-1")
				}
			},
			volume: claim(), err: ErrNoVolume,
		},
		"an emptyDir of the same name does not hide a PersistentVolume": {
			make:   func(tr *tree) { tr.folder(emptyDirFolder, "pv-1"); tr.folder("kubernetes.io~nfs", "pv-1") },
			volume: claim(), here: "kubernetes.io~nfs/pv-1",
		},
		"two volumes of the same name": {
			make: func(tr *tree) {
				tr.folder("kubernetes.io~nfs", "pv-1")
				tr.folder("kubernetes.io~local-volume", "pv-1")
			},
			volume: claim(), err: ErrAmbiguous,
		},
		"a restore waits for the mount": {
			make:   func(tr *tree) { tr.folder("kubernetes.io~local-volume", "pv-1") },
			volume: restored(claim()), err: ErrNotMounted,
		},
		"a volume that the kubelet does not have": {
			make:   func(tr *tree) { tr.folder("kubernetes.io~nfs", "pv-2") },
			volume: claim(), err: ErrNoVolume,
		},
		"a pod that is not here": {
			make:   func(*tree) {},
			volume: Volume{PodUID: "another", EmptyDir: "cache"}, err: ErrNoVolume,
		},
		"a folder of the node that isn't mounted here": {
			make:   func(*tree) {},
			volume: Volume{PodUID: pod, PersistentVolume: "pv-1", HostPath: "/srv/data"}, err: ErrHostPath,
		},
		"a folder of the node": {
			make:   func(tr *tree) { tr.node("srv/data", "srv/data") },
			volume: Volume{PodUID: pod, HostPath: "/srv/data/"}, here: "on the node",
		},
		"a folder in a folder of the node that is mounted": {
			make:   func(tr *tree) { tr.node("srv", "srv/data") },
			volume: Volume{PodUID: pod, HostPath: "/srv/data"}, here: "on the node",
		},
		"a folder of a node that is mounted as a whole": {
			make:   func(tr *tree) { tr.node("", "srv/data") },
			volume: Volume{PodUID: pod, HostPath: "/srv/data"}, here: "on the node",
		},
		"a folder above the one that is mounted": {
			make:   func(tr *tree) { tr.node("srv/data", "srv/data") },
			volume: Volume{PodUID: pod, HostPath: "/srv"}, err: ErrHostPath,
		},
		"a link to a folder of the node": {
			make: func(tr *tree) {
				tr.node("srv", "srv/other")
				require.NoError(tr.t, os.Symlink(tr.outside, filepath.Join(tr.host, "srv", "data")))
			},
			volume: Volume{PodUID: pod, HostPath: "/srv/data"}, err: ErrHostPath,
		},
		"the node's root": {
			make:   func(tr *tree) { require.NoError(tr.t, os.MkdirAll(tr.host, 0o750)) },
			volume: Volume{PodUID: pod, HostPath: "/"}, err: ErrName,
		},
		"a folder of the node that leads elsewhere": {
			make:   func(tr *tree) { require.NoError(tr.t, os.MkdirAll(tr.host, 0o750)) },
			volume: Volume{PodUID: pod, HostPath: "/srv/../../outside"}, err: ErrName,
		},
		"an inline NFS volume": {
			make:   func(tr *tree) { tr.mount(nfsFolder, "share") },
			volume: restored(Volume{PodUID: pod, NFS: "share"}), here: "kubernetes.io~nfs/share", mounted: true,
		},
		"an inline NFS volume that isn't mounted yet": {
			make:   func(tr *tree) { tr.folder(nfsFolder, "share") },
			volume: restored(Volume{PodUID: pod, NFS: "share"}), err: ErrNotMounted,
		},
		"an inline CSI volume": {
			make:   func(tr *tree) { tr.folder(csiFolder, "scratch", csiMount) },
			volume: Volume{PodUID: pod, CSI: "scratch"}, here: "kubernetes.io~csi/scratch/mount",
		},
		"a link in the place of an emptyDir": {
			make:   func(tr *tree) { tr.link(emptyDirFolder, "cache") },
			volume: emptyDir(), err: ErrNoVolume,
		},
		"a link in the place of a plugin's folder": {
			make:   func(tr *tree) { tr.link(emptyDirFolder) },
			volume: emptyDir(), err: ErrNoVolume,
		},
		"a link in the place of a PersistentVolume": {
			make:   func(tr *tree) { tr.link("kubernetes.io~nfs", "pv-1") },
			volume: claim(), err: ErrNoVolume,
		},
		"a link in the place of a CSI mount": {
			make:   func(tr *tree) { tr.link(csiFolder, "pv-1", "mount") },
			volume: claim(), err: ErrNoVolume,
		},
		"a file in the place of an emptyDir": {
			make: func(tr *tree) {
				tr.folder(emptyDirFolder)
				require.NoError(tr.t, os.WriteFile(tr.path(emptyDirFolder, "cache"), nil, 0o600))
			},
			volume: emptyDir(), err: ErrNoVolume,
		},
		"a pod's name that leads elsewhere": {
			make:   func(*tree) {},
			volume: Volume{PodUID: "../pods/" + pod, EmptyDir: "cache"}, err: ErrName,
		},
		"a volume's name that leads elsewhere": {
			make:   func(*tree) {},
			volume: Volume{PodUID: pod, EmptyDir: ".."}, err: ErrName,
		},
		"no name at all": {make: func(*tree) {}, volume: Volume{PodUID: pod}, err: ErrName},
		"both names":     {make: func(*tree) {}, volume: Volume{PodUID: pod, EmptyDir: "a", PersistentVolume: "b"}, err: ErrName},
	}

	for name, test := range tests {
		for way, openat2 := range map[string]bool{"openat2": true, "openat": false} {
			t.Run(name+"/"+way, func(t *testing.T) {
				tr := newTree(t)
				test.make(tr)

				finder := New(tr.root, tr.host)
				finder.openat2 = openat2

				file, found, err := finder.Open(t.Context(), test.volume)
				if test.err != nil {
					require.ErrorIs(t, err, test.err)
					assert.Nil(t, file)

					return
				}

				require.NoError(t, err)
				defer file.Close()

				here, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/here", file.Fd()))
				require.NoError(t, err)
				assert.Equal(t, test.here, string(here))

				path := pod + "/volumes/" + test.here
				if test.volume.HostPath != "" {
					path = test.volume.HostPath
				}

				assert.Equal(t, Found{Mounted: test.mounted, Path: path}, found)
			})
		}
	}
}

func TestNothingStaysOpen(t *testing.T) {
	tr := newTree(t)
	tr.folder("kubernetes.io~nfs", "pv-1")
	tr.folder(csiFolder, "pv-2")

	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)

		return len(entries)
	}

	before := count()

	for _, name := range []string{"pv-1", "pv-2", "pv-3"} {
		file, _, err := New(tr.root, tr.host).Open(t.Context(), Volume{PodUID: pod, PersistentVolume: name})
		if err == nil {
			require.NoError(t, file.Close())
		}
	}

	assert.Equal(t, before, count())
}
