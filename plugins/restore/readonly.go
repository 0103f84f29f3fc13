package restore

import (
	"fmt"

	"github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// writable has the kubelet mount the volumes that are to be filled so that they can be: one whose source says
// readOnly is mounted so for everybody on the node, the daemon included. Instead, all mounts of the pod's
// containers say it, so that its application still can't write.
func writable(log logrus.FieldLogger, item *unstructured.Unstructured, jobs map[string]string) error {
	volumes, _, err := unstructured.NestedSlice(item.Object, "spec", "volumes")
	if err != nil {
		return fmt.Errorf("read the volumes of pod %s: %w", item.GetName(), err)
	}

	turned := map[string]bool{}

	for _, v := range volumes {
		volume, _ := v.(map[string]any)

		name, _ := volume["name"].(string)
		if _, filled := jobs[name]; filled && turn(volume) {
			turned[name] = true

			log.WithField("volume", name).Info("the volume is mounted read-only by each container from now on, no more as a whole: or its data could not be restored")
		}
	}

	if len(turned) == 0 {
		return nil
	}

	if err := unstructured.SetNestedSlice(item.Object, volumes, "spec", "volumes"); err != nil {
		return fmt.Errorf("change the volumes of pod %s: %w", item.GetName(), err)
	}

	for _, list := range []string{"initContainers", "containers"} {
		if err := protect(item, list, turned); err != nil {
			return err
		}
	}

	return nil
}

// turn takes readOnly from the volume's source, and reports whether it was there.
func turn(volume map[string]any) bool {
	for _, kind := range []string{"persistentVolumeClaim", "nfs", "csi"} {
		if source, _ := volume[kind].(map[string]any); source["readOnly"] == true {
			delete(source, "readOnly")

			return true
		}
	}

	return false
}

// protect makes the containers' mounts of the volumes read-only.
func protect(item *unstructured.Unstructured, list string, volumes map[string]bool) error {
	containers, found, err := unstructured.NestedSlice(item.Object, "spec", list)
	if err != nil || !found {
		return err
	}

	for _, c := range containers {
		container, _ := c.(map[string]any)
		mounts, _ := container["volumeMounts"].([]any)

		for _, m := range mounts {
			mount, _ := m.(map[string]any)
			if name, _ := mount["name"].(string); volumes[name] {
				mount["readOnly"] = true
			}
		}
	}

	if err := unstructured.SetNestedSlice(item.Object, containers, "spec", list); err != nil {
		return fmt.Errorf("change the mounts of pod %s: %w", item.GetName(), err)
	}

	return nil
}
