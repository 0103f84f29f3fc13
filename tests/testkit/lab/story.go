package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// App is the application of the demo: a Deployment of one pod with a claim
// "data" and an emptyDir "scratch".
type App struct {
	Lab       *Lab
	Namespace string
	// Class of the claim.
	Class string
}

var appLabels = map[string]string{"app": "shop"}

// Deploy makes the namespace and the application, and waits for its pod.
func (a *App) Deploy(ctx context.Context) (*corev1.Pod, error) {
	if err := a.Lab.CreateNamespace(ctx, a.Namespace); err != nil {
		return nil, err
	}

	if err := a.Lab.Create(ctx, Claim(a.Namespace, "data", a.Class)); err != nil {
		return nil, err
	}

	one := int32(1)
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.Namespace, Name: "shop"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &one,
			Selector: &metav1.LabelSelector{MatchLabels: appLabels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{
					Labels:      appLabels,
					Annotations: map[string]string{contract.AnnotationBackupVolumes: "data, scratch"},
				},
				Spec: PodSpec([]string{"data"}, []string{"scratch"}),
			},
		},
	}
	if err := a.Lab.Create(ctx, deployment); err != nil {
		return nil, err
	}

	return a.Pod(ctx)
}

// Pod waits for the application's one ready pod.
func (a *App) Pod(ctx context.Context) (*corev1.Pod, error) {
	pods, err := a.Lab.ReadyPods(ctx, a.Namespace, appLabels, 1)
	if err != nil {
		return nil, err
	}

	return &pods[0], nil
}

// Volumes returns the folders of the pod's two volumes on the node, by their names.
func (a *App) Volumes(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	dirs := map[string]string{}

	for _, name := range []string{"data", "scratch"} {
		dir, err := a.Lab.VolumeDir(ctx, pod, name)
		if err != nil {
			return nil, err
		}

		dirs[name] = dir
	}

	return dirs, nil
}

// Digest returns one sha256 over the names and the contents of all regular files below dir.
func Digest(dir string) (string, int, error) {
	var sums []string

	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}

		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}

		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}

		sums = append(sums, fmt.Sprintf("%x %q", sha256.Sum256(content), name))

		return nil
	})
	sort.Strings(sums)

	all := sha256.Sum256([]byte(strings.Join(sums, "\n")))

	return hex.EncodeToString(all[:]), len(sums), err
}

// VolumeBackups returns the jobs of a Velero backup.
func (l *Lab) VolumeBackups(ctx context.Context, backup string) ([]v1alpha1.VolumeBackup, error) {
	var list v1alpha1.VolumeBackupList
	err := l.List(ctx, &list, client.InNamespace(l.Namespace), client.MatchingLabels{contract.LabelBackupName: backup})

	return list.Items, err
}

// VolumeRestores returns the jobs of a Velero restore.
func (l *Lab) VolumeRestores(ctx context.Context, restore string) ([]v1alpha1.VolumeRestore, error) {
	var list v1alpha1.VolumeRestoreList
	err := l.List(ctx, &list, client.InNamespace(l.Namespace), client.MatchingLabels{contract.LabelRestoreName: restore})

	return list.Items, err
}

// Repositories returns the repositories of a namespace's volumes.
func (l *Lab) Repositories(ctx context.Context, namespace string) ([]v1alpha1.Repository, error) {
	var list v1alpha1.RepositoryList
	if err := l.List(ctx, &list, client.InNamespace(l.Namespace)); err != nil {
		return nil, err
	}

	var of []v1alpha1.Repository

	for _, r := range list.Items {
		if r.Spec.Namespace == namespace {
			of = append(of, r)
		}
	}

	return of, nil
}
