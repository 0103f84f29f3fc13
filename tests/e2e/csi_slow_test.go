//go:build e2e && slow

package e2e

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// csiName is the name of the tests' CSI driver.
const csiName = "csi.estiba.test"

// csiDriver is a CSI driver for the first node, in whose namespaces the tests run: its volumes are folders that it
// mounts where the kubelet wants them. They are made by hand or, inline, when a pod asks for one.
type csiDriver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	socket, folder string
}

// GetInfo says to the kubelet who registers.
func (d *csiDriver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: csiName, Endpoint: d.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

// NotifyRegistrationStatus is told what became of it.
func (d *csiDriver) NotifyRegistrationStatus(context.Context, *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	return &registration.RegistrationStatusResponse{}, nil
}

// GetPluginInfo returns the driver's name.
func (d *csiDriver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: csiName, VendorVersion: "1"}, nil
}

// NodeGetInfo returns the node's name.
func (d *csiDriver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: firstNode}, nil
}

// NodeGetCapabilities says that nothing but mounting is needed.
func (d *csiDriver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

// NodePublishVolume mounts the volume's folder.
func (d *csiDriver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	source := filepath.Join(d.folder, r.GetVolumeId())

	err := errors.Join(os.MkdirAll(source, 0o755), os.MkdirAll(r.GetTargetPath(), 0o750))
	if err == nil {
		err = unix.Mount(source, r.GetTargetPath(), "", unix.MS_BIND, "")
	}

	if err == nil && r.GetReadonly() {
		err = unix.Mount("", r.GetTargetPath(), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}

	return &csi.NodePublishVolumeResponse{}, err
}

// NodeUnpublishVolume unmounts it.
func (d *csiDriver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unix.Unmount(r.GetTargetPath(), 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}

	if err := os.Remove(r.GetTargetPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}

	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// csiDriver runs the driver until the test ends, and waits until the kubelet knows it.
func (c *cell) csiDriver() {
	c.t.Helper()

	const kubelet = "/var/lib/kubelet"

	home := filepath.Join(kubelet, "plugins", csiName)
	require.NoError(c.t, os.MkdirAll(home, 0o755))

	d := &csiDriver{socket: filepath.Join(home, "csi.sock"), folder: filepath.Join(c.temp, "csi")}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, d)
	csi.RegisterNodeServer(server, d)
	registration.RegisterRegistrationServer(server, d)

	for _, socket := range []string{d.socket, filepath.Join(kubelet, "plugins_registry", csiName+"-reg.sock")} {
		listener, err := net.Listen("unix", socket)
		require.NoError(c.t, err)

		go func() { _ = server.Serve(listener) }()
	}

	c.create(&storagev1.CSIDriver{
		ObjectMeta: metav1.ObjectMeta{Name: csiName},
		Spec: storagev1.CSIDriverSpec{
			AttachRequired:       ptr.To(false),
			FSGroupPolicy:        ptr.To(storagev1.NoneFSGroupPolicy),
			VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral},
		},
	})
	c.t.Cleanup(func() {
		// The kubelet asks it to unmount.
		assert.NoError(c.t, c.DeleteNamespace(context.Background(), c.namespace))
		server.Stop()
		assert.NoError(c.t, os.RemoveAll(home))
	})
	c.eventually("the kubelet to know the driver", func(ctx context.Context) (bool, error) {
		var node storagev1.CSINode
		err := c.Get(ctx, client.ObjectKey{Name: firstNode}, &node)

		for _, known := range node.Spec.Drivers {
			if known.Name == csiName {
				return true, nil
			}
		}

		return false, err
	})
}

// csiVolume makes the volume for the claim "data" of the cell's namespace.
func (c *cell) csiVolume(name string) {
	c.t.Helper()
	c.create(&corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: c.namespace + "-" + name},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName:              csiName,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: csiName, VolumeHandle: c.namespace + "-" + name,
			}},
			ClaimRef: &corev1.ObjectReference{Namespace: c.namespace, Name: "data"},
		},
	})
}

// mountedByCSI returns where the kubelet has the pod's volumes of the driver, by their names in the pod.
func (c *cell) mountedByCSI(pod *corev1.Pod) map[string]string {
	c.t.Helper()

	var claim corev1.PersistentVolumeClaim
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Namespace: c.namespace, Name: "data"}, &claim))

	folder := filepath.Join("/var/lib/kubelet/pods", string(pod.UID), "volumes/kubernetes.io~csi")

	return map[string]string{
		"data":   filepath.Join(folder, claim.Spec.VolumeName, "mount"),
		"inline": filepath.Join(folder, "inline", "mount"),
	}
}

func TestSlowVolumesOfACSIDriverComeBack(t *testing.T) {
	c := open(t)
	c.csiDriver()
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	c.csiVolume("before")

	claim := lab.Claim(c.namespace, "data", csiName)
	claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	require.NoError(t, c.Create(c.ctx, claim))
	c.createPodWith("app", []string{"data"}, nil, func(s *corev1.PodSpec) {
		s.Volumes = append(s.Volumes, corev1.Volume{Name: "inline", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: csiName}}})
		s.Containers[0].VolumeMounts = append(s.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "inline", MountPath: "/inline"})
	})

	kept := map[string]string{}

	for name, dir := range c.mountedByCSI(c.podAgain()) {
		require.NoError(t, lab.FillVolume(dir, lab.Data{Files: 40, Bytes: 1 << 20, Seed: uint64(92 + len(name))}))

		kept[name] = filepath.Join(c.temp, "kept", name)
		require.NoError(t, c.Keep(c.ctx, dir, kept[name]))
	}

	c.backup(c.namespace)

	kinds := map[string]v1alpha1.VolumeKind{}
	for _, job := range c.completed(c.namespace, 2) {
		kinds[job.Spec.Volume.Name] = job.Spec.Volume.Kind
	}

	assert.Equal(t, map[string]v1alpha1.VolumeKind{"data": v1alpha1.VolumePersistentVolumeClaim, "inline": v1alpha1.VolumeCSI}, kinds)

	c.deleteNamespace()
	c.csiVolume("after")
	c.restore(c.namespace, c.namespace)

	pod := c.podAgain()
	for name, dir := range c.mountedByCSI(pod) {
		c.sameDir(kept[name], dir)
	}

	t.Run("and a claim for one pod alone is read through a staging pod", func(t *testing.T) {
		c := c.within(t)
		require.NoError(t, c.Delete(c.ctx, pod))
		c.eventually("the pod to be gone", func(ctx context.Context) (bool, error) {
			var pods corev1.PodList
			err := c.List(ctx, &pods, client.InNamespace(c.namespace))

			return len(pods.Items) == 0, err
		})

		name := c.namespace + "-idle"
		c.backup(name, "--resource-policies-configmap", c.policy())

		job := c.completed(name, 1)[0]
		assert.Equal(t, contract.StagingPodName(job.Name), job.Status.Pod.Name)
		assert.Positive(t, job.Status.Summary.Files)
	})
}
