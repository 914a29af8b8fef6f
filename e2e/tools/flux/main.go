// flux-apply does with a file of manifests what Flux's kustomize-controller does, by its library for server-side
// apply (github.com/fluxcd/pkg/ssa):
//
//	flux-apply apply FILE    applies it in stages
//	flux-apply drift FILE    prints the objects that another apply would change; exit code 3 if there are any
//	flux-apply delete FILE   deletes the objects that carry its labels
//
// KUBECONFIG names the cluster. It decides nothing else; e2e/test_gitops.sh uses it.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const drifted = 3

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "flux-apply:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run() (int, error) {
	if len(os.Args) != 3 {
		return 0, fmt.Errorf("usage: flux-apply apply|drift|delete FILE")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return 0, err
	}
	kube, err := client.New(config, client.Options{})
	if err != nil {
		return 0, err
	}
	poller := polling.NewStatusPoller(kube, kube.RESTMapper(), polling.Options{})
	// The names that kustomize-controller uses.
	owner := ssa.Owner{Field: "kustomize-controller", Group: "kustomize.toolkit.fluxcd.io"}
	manager := ssa.NewResourceManager(kube, poller, owner)

	file, err := os.Open(os.Args[2])
	if err != nil {
		return 0, err
	}
	defer file.Close()
	objects, err := utils.ReadObjects(file)
	if err != nil {
		return 0, err
	}
	if err := normalize.UnstructuredList(objects); err != nil {
		return 0, err
	}
	manager.SetOwnerLabels(objects, "zen-lead", "flux-system")

	switch os.Args[1] {
	case "apply":
		changes, err := manager.ApplyAllStaged(ctx, objects, ssa.DefaultApplyOptions())
		if err != nil {
			return 0, err
		}
		for _, entry := range changes.Entries {
			fmt.Println(entry.String())
		}
	case "drift":
		code := 0
		for _, object := range objects {
			entry, live, merged, err := manager.Diff(ctx, object, ssa.DefaultDiffOptions())
			if err != nil {
				return 0, err
			}
			if entry.Action != ssa.UnchangedAction {
				code = drifted
				fmt.Println(entry.String(), "live:", live, "merged:", merged)
			}
		}
		return code, nil
	case "delete":
		options := ssa.DefaultDeleteOptions()
		options.Inclusions = manager.GetOwnerLabels("zen-lead", "flux-system")
		changes, err := manager.DeleteAll(ctx, objects, options)
		if err != nil {
			return 0, err
		}
		for _, entry := range changes.Entries {
			fmt.Println(entry.String())
		}
		return 0, manager.WaitForTermination(objects, ssa.WaitOptions{Interval: time.Second, Timeout: 90 * time.Second})
	default:
		return 0, fmt.Errorf("unknown command %q: apply, drift or delete", os.Args[1])
	}
	return 0, nil
}
